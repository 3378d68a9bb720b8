//! `sockshim demo`: unmodified C programs, watched; then what sockshim does for the speed of a program.

mod child;
mod measure;
mod trace;

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::Failure;
use crate::args::Demo;
use child::Child;
use trace::Trace;

pub(crate) fn run(args: &Demo) -> Result<ExitCode, Failure> {
    let programs = Programs::find(&args.examples)?;
    writeln!(
        io::stdout(),
        "Unmodified C programs under `sockshim run`. SOCKSHIM_UPGRADE_AFTER=0 puts these two connections on a\n\
         pipe at once; by default so short a connection stays with the kernel.\n"
    )?;

    show(&programs, "HTTP/1.0: one request, then the server disconnects first", |port| {
        programs.under_sockshim("http_get", &["127.0.0.1", port, "/hello"])
    })?;
    show(
        &programs,
        "HTTP/1.1: three requests on one connection, then the client disconnects first",
        |port| programs.under_sockshim("http_keepalive", &["127.0.0.1", port, "3"]),
    )?;
    if !args.no_measure {
        measure::compare()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs http_server and one client under sockshim and prints the phases of their connection.
fn show(programs: &Programs, title: &str, client: impl FnOnce(&str) -> Command) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("trace");
    let start = |mut command: Command| {
        Child::start(command.env("SOCKSHIM_TRACE", &file).env("SOCKSHIM_UPGRADE_AFTER", "0"))
    };
    let mut server = start(programs.under_sockshim("http_server", &["0", "1"]))?;
    let client = start(client(&server.port()?))?;
    let ends = [("client", client.pid()), ("server", server.pid())];
    let answer = client.finish()?;
    server.finish()?;
    print(title, &answer, &Trace::read(&file)?, ends)?;
    Ok(())
}

/// What the client said, and the phases of both ends: their names and process numbers.
fn print(title: &str, answer: &str, trace: &Trace, ends: [(&str, u32); 2]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{title}\n")?;
    for line in answer.lines().filter(|line| !line.is_empty()) {
        writeln!(out, "    | {line}")?;
    }
    writeln!(out)?;
    if trace.is_empty() {
        return writeln!(out, "    libsockshim.so wrote no trace, so the phases cannot be shown.\n");
    }
    for (name, pid) in ends {
        writeln!(out, "    {name} (process {pid})")?;
        for phase in trace.of(pid) {
            writeln!(out, "      {phase}")?;
        }
    }
    writeln!(out)
}

/// The C examples, and how to start them.
struct Programs {
    examples: PathBuf,
    sockshim: PathBuf,
}

impl Programs {
    fn find(examples: &Path) -> Result<Self, Failure> {
        for name in ["http_server", "http_get", "http_keepalive"] {
            if !examples.join(name).is_file() {
                return Err(Failure::new(
                    1,
                    format!(
                        "there is no {name} in {}; build the examples with `make -C c_examples`, or say where \
                         they are with --examples",
                        examples.display()
                    ),
                ));
            }
        }
        Ok(Self { examples: examples.canonicalize()?, sockshim: env::current_exe()? })
    }

    fn under_sockshim(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.sockshim);
        command.args(["run", "--"]).arg(self.examples.join(name)).args(arguments);
        command
    }
}
