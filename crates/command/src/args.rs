//! The command line. What is asked for, not how it is done.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Parser, Subcommand, ValueEnum};
use sockshim_bench::questions::GROUPS;

/// Runs same-machine TCP connections over shared-memory pipes, under unmodified programs.
#[derive(Debug, Parser)]
#[command(name = "sockshim", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Ss(Ss),
    Demo(Demo),
    Bench(Bench),
}

/// Runs a program with its sockets on sockshim.
///
/// Connections between two programs that both run this way, on this machine, are carried through shared
/// memory. All others are the kernel's, exactly as without sockshim.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Run {
    /// Where connections may run: `auto` decides for each, `host` is the kernel alone, `pipe` uses shared memory as soon as possible
    #[arg(long, value_enum, value_name = "PATH")]
    pub(crate) path: Option<PathChoice>,

    /// What to favour while waiting: `safe` saves CPU time, `latency` and `throughput` spend it
    #[arg(long, value_enum, value_name = "PROFILE")]
    pub(crate) profile: Option<Profile>,

    /// The libsockshim.so to use instead of the one that belongs to this command
    #[arg(long, value_name = "FILE")]
    pub(crate) library: Option<PathBuf>,

    /// Say on standard error which environment variables are set
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// The program and its arguments; options behind its name belong to it
    #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathChoice {
    Auto,
    Host,
    Pipe,
}

impl PathChoice {
    /// The value as `SOCKSHIM_PATH` spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Host => "host",
            Self::Pipe => "pipe",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Safe,
    Latency,
    Throughput,
}

impl Profile {
    /// The value as `SOCKSHIM_PROFILE` spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
        }
    }
}

/// Lists the live connections of this user: process, addresses, path, and why it is that path.
///
/// One line per end. SENT, RECEIVED, RECV-Q and SEND-Q count the bytes of the pipe, the KERNEL columns those that
/// went through the kernel.
#[derive(Debug, clap::Args)]
#[command(after_help = JSON_FIELDS)]
pub(crate) struct Ss {
    /// Print one JSON array with an object per end
    #[arg(long)]
    pub(crate) json: bool,

    /// Print the list again every second
    #[arg(long)]
    pub(crate) watch: bool,
}

/// Shows the life of a connection between two C programs, and what sockshim does for their speed.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Where the compiled C examples are (`make -C c_examples` puts them there)
    #[arg(long, value_name = "DIR", default_value = "c_examples/bin")]
    pub(crate) examples: PathBuf,

    /// Show the connections only, and measure nothing
    #[arg(long)]
    pub(crate) no_measure: bool,
}

/// Measures this machine: libc sockets, the same program on sockshim, and a bare ring in shared memory.
///
/// The three work by turns, so that what drifts on the machine falls on all of them. Each line says what an
/// operation takes, in brackets the user and system time of both ends together; then how many times as good as
/// libc sockshim is, with the quartiles, and how many times what the bare ring takes, which is the limit of the
/// machine. `near` and `far` say how quickly a cache line moved between the two cores before and after: compare no
/// figures across them.
#[derive(Debug, clap::Args)]
#[command(after_help = QUESTIONS.as_str())]
pub(crate) struct Bench {
    /// A rough idea within two minutes
    #[arg(long)]
    pub(crate) quick: bool,

    /// Print one JSON array with an object per line instead of the table (docs/bench.md)
    #[arg(long)]
    pub(crate) json: bool,

    /// The libsockshim.so to use instead of the one that belongs to this command
    #[arg(long, value_name = "FILE")]
    pub(crate) library: Option<PathBuf>,

    /// What to ask; everything that is marked with a star if nothing is named
    #[arg(value_name = "QUESTION")]
    pub(crate) questions: Vec<String>,
}

const JSON_FIELDS: &str = "\
Fields of --json (docs/ss.md explains them):
  pids, program, fd, local, peer, accepted, path, state, reason, reason_text, sent, received, kernel_sent,
  kernel_received, doorbells, sleeps, upgrades, spills, ring_recv_q, ring_send_q";

/// The groups of questions with what they are about.
static QUESTIONS: LazyLock<String> = LazyLock::new(|| {
    let lines = GROUPS.iter().map(|group| {
        let star = if group.usual { '*' } else { ' ' };
        format!("\n {star} {:18} {}", group.name, group.title)
    });
    format!(
        "Questions:{}\n   {:18} the programs from redis on\n   {:18} everything",
        lines.collect::<String>(),
        "programs",
        "all"
    )
});

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    the command failed
  2    the command line was not understood
  125  `run` could not prepare the program (libsockshim.so was not found, say)
  126  `run` found the program, but it cannot be executed
  127  `run` did not find the program
  Otherwise `run` ends as the program ends: it is replaced by it.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn options_behind_the_program_belong_to_it() {
        let args = Args::try_parse_from(["sockshim", "run", "-v", "ls", "-l", "--path", "x"]).unwrap();
        let Command::Run(run) = args.command else { panic!("not run") };
        assert!(run.verbose);
        assert_eq!(run.path, None);
        assert_eq!(run.program, ["ls", "-l", "--path", "x"]);
    }

    #[test]
    fn an_unknown_option_before_the_program_is_an_error() {
        assert!(Args::try_parse_from(["sockshim", "run", "--bogus", "ls"]).is_err());
    }
}
