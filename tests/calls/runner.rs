//! The parent: starts this program again for each case and environment, and judges how it ended.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

use crate::harness::{Body, Case, Environment, Place, SKIPPED};
use crate::watchdog;

pub(crate) fn run(areas: &'static [(&'static str, &'static [Case])]) -> ExitCode {
    let (environments, arguments) = chosen_environments(env::args());
    let nocapture = arguments.nocapture;
    let mut trials = Vec::new();
    for &environment in &environments {
        for (area, cases) in areas {
            for case in *cases {
                if !case.only.is_empty() && !case.only.contains(&environment) {
                    continue;
                }
                for name in names(area, case) {
                    let title = format!("{}::{name}", environment.name());
                    trials.push(Trial::test(title, move || attempt(&name, case, environment, nocapture)));
                }
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Takes `--env <name>`, which libtest does not know, out of the arguments.
fn chosen_environments(arguments: impl Iterator<Item = String>) -> (Vec<Environment>, Arguments) {
    let mut chosen = Vec::new();
    let mut rest = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--env") {
            Some("") => arguments.next(),
            Some(value) => value.strip_prefix('=').map(str::to_owned),
            None => {
                rest.push(argument);
                continue;
            }
        };
        match value.as_deref().and_then(Environment::named) {
            Some(environment) => chosen.push(environment),
            None => {
                let known: Vec<_> = Environment::ALL.iter().map(|each| each.name()).collect();
                eprintln!("--env takes one of: {}", known.join(" "));
                process::exit(2);
            }
        }
    }
    if chosen.is_empty() {
        chosen = Environment::ALL.to_vec();
    }
    (chosen, Arguments::from_iter(rest))
}

fn names(area: &str, case: &Case) -> Vec<String> {
    let name = format!("{area}::{}", case.name);
    match case.body {
        Body::Alone(_) => vec![name],
        Body::Dialogue { places, .. } => places
            .iter()
            .map(|place| match place {
                Place::Thread => format!("{name}::thread"),
                Place::Fork => format!("{name}::fork"),
                Place::Exec => format!("{name}::exec"),
            })
            .collect(),
    }
}

fn attempt(name: &str, case: &Case, environment: Environment, nocapture: bool) -> Result<(), Failed> {
    let folder = scratch()?;
    let mut command = Command::new(env::current_exe()?);
    for (variable, _) in env::vars_os() {
        if variable.to_string_lossy().starts_with("SOCKSHIM_") {
            command.env_remove(variable);
        }
    }
    command.env("CALLS_CASE", name).env("CALLS_ENV", environment.name());
    // The full name, for programs that a case starts with an environment of its own.
    command.env("CALLS_SCRATCH", folder.path()).env("RUST_BACKTRACE", "0");
    if environment != Environment::Host {
        command.env("LD_PRELOAD", libsockshim()?);
        command.env("SOCKSHIM_DIR", folder.path().join("meet"));
        command.envs(environment.knobs().iter().copied());
    }
    let output = folder.path().join("output");
    command.stdin(Stdio::null());
    if !nocapture {
        command.stdout(File::create(&output)?).stderr(File::options().append(true).open(&output)?);
    }
    let mut group = Group(command.process_group(0).spawn()?);
    let (status, state) = group.wait(Duration::from_secs(case.seconds), &folder.path().join("meet"))?;
    let text = fs::read_to_string(&output).unwrap_or_default();
    match status {
        None => Err(format!("still running after {} s\n{text}{state}", case.seconds).into()),
        Some(status) if status.success() => Ok(()),
        Some(status) if status.code() == Some(i32::from(SKIPPED)) => {
            eprintln!("{}::{name}: {}", environment.name(), text.trim());
            Ok(())
        }
        Some(status) => Err(format!("{}\n{text}", describe(status)).into()),
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or(-1)),
    }
}

fn libsockshim() -> Result<PathBuf, Failed> {
    let here = env::current_exe()?;
    // Cargo puts test programs into `deps/`, and a copy of the library both there and beside it.
    let path = here.with_file_name("libsockshim.so");
    if path.exists() { Ok(path) } else { Err(format!("{} is missing", path.display()).into()) }
}

/// A case and all that it started, killed together at the end.
struct Group(Child);

impl Group {
    /// `None`, and what it was doing, when the watchdog had to bite.
    fn wait(&mut self, limit: Duration, meet: &Path) -> std::io::Result<(Option<ExitStatus>, String)> {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        let in_time = self.has_ended();
        let state = if in_time { String::new() } else { watchdog::report(self.0.id(), meet) };
        self.kill();
        let status = self.0.wait()?;
        Ok((in_time.then_some(status), state))
    }

    /// Leaves the child a zombie, so that its number still names its group.
    fn has_ended(&self) -> bool {
        // SAFETY: all zeroes is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` outlives the call.
        let answer = unsafe { libc::waitid(libc::P_PID, self.0.id(), &mut info, options) };
        // SAFETY: waitid filled it in, or left the zeroes.
        answer == 0 && unsafe { info.si_pid() } != 0
    }

    fn kill(&self) {
        // SAFETY: a signal touches no memory; the child is not reaped yet, so the group is still its own.
        unsafe { libc::kill(-(self.0.id() as libc::pid_t), libc::SIGKILL) };
    }
}

/// A folder of its own for each attempt, with the rendezvous folder inside.
fn scratch() -> io::Result<TempDir> {
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_owned() } else { env::temp_dir() };
    let folder = tempfile::tempdir_in(base)?;
    fs::DirBuilder::new().mode(0o700).create(folder.path().join("meet"))?;
    Ok(folder)
}
