//! The processes that are measured: how they are started and asked.

use crate::Trouble;
use crate::backend::{Backend, Under};
use crate::job::{self, CLIENT, Job, SERVER};
use crate::run::{self, Run};
use crate::{net, ring};
use libc::c_int;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// This program, even when a newer one has taken its place meanwhile.
const SELF: &str = "/proc/self/exe";

/// An answer later than this is a hang.
const PATIENCE_MS: c_int = 60_000;

/// Where the scheduler may run the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Wherever it likes: what programs get.
    Free,
    /// Both on the first processor.
    OneCore,
    /// Each on a processor of its own.
    TwoCores,
}

/// What the workers of a measurement do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The work and its parameters.
    pub(crate) words: Vec<String>,
    pub(crate) placement: Placement,
    /// A server and a client, or a client alone.
    pub(crate) with_server: bool,
    /// How many of these work at the same time.
    pub(crate) pairs: usize,
    /// Processes that compute at the same time and compete for the processors.
    pub(crate) strangers: Strangers,
    /// Whether the server's figure is a part of it, and not the same seen from the other side.
    pub(crate) both_figures: bool,
}

/// Processes that compute all the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strangers {
    pub(crate) count: usize,
    /// See nice(1).
    pub(crate) nice: i32,
}

/// What some operations took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Per operation, as are the others; elapsed time, or bytes where the question is about memory.
    pub(crate) figure: f64,
    /// User time of both ends, per operation.
    pub(crate) user_ns: f64,
    pub(crate) system_ns: f64,
    /// How many operations there were.
    pub(crate) operations: f64,
    /// How long they took in all, with what does not count.
    pub(crate) took_ns: f64,
    /// Unless there is no connection to ask.
    pub(crate) on_pipe: Option<bool>,
}

/// The processes of one backend.
#[derive(Debug)]
pub(crate) struct Workers {
    pairs: Vec<Pair>,
    both_figures: bool,
}

#[derive(Debug)]
struct Pair {
    server: Option<Worker>,
    client: Worker,
}

impl Workers {
    pub(crate) fn start(run: &Run, plan: &Plan, backend: &Backend) -> Result<Self, Trouble> {
        let pairs = (0..plan.pairs).map(|_| Pair::start(run, plan, backend));
        Ok(Self { pairs: pairs.collect::<Result<_, _>>()?, both_figures: plan.both_figures })
    }

    /// Does `count` operations with each pair at once.
    pub(crate) fn run(&mut self, count: u64) -> Result<Sample, Trouble> {
        for pair in &mut self.pairs {
            if let Some(server) = &mut pair.server {
                server.ask(count)?;
                server.number()?; // it is about to serve
            }
        }
        let start = Instant::now();
        for pair in &mut self.pairs {
            pair.client.ask(count)?;
        }
        let operations = count as f64 * self.pairs.len() as f64;
        let mut sample = Sample { operations, ..Sample::default() };
        let mut longest = 0;
        for pair in &mut self.pairs {
            let [mut figure, user, system, on_pipe] = pair.client.answer()?;
            let [server_figure, server_user, server_system, _] = match &mut pair.server {
                Some(server) => server.answer()?,
                None => [0; 4],
            };
            if self.both_figures {
                figure += server_figure;
            }
            longest = longest.max(figure);
            if on_pipe != job::NO_CONNECTION {
                sample.on_pipe = Some(sample.on_pipe.unwrap_or(true) && on_pipe == 1);
            }
            sample.user_ns += (user + server_user) as f64 / operations;
            sample.system_ns += (system + server_system) as f64 / operations;
        }
        sample.took_ns = start.elapsed().as_nanos() as f64;
        sample.figure = longest as f64 / operations;
        Ok(sample)
    }
}

impl Pair {
    fn start(run: &Run, plan: &Plan, backend: &Backend) -> Result<Self, Trouble> {
        let failed = |error| Trouble(format!("the raw ring: {error}"));
        let mapping =
            matches!(backend.client, Under::Ring(..)).then(|| ring::make().map_err(failed)).transpose()?;
        let start =
            |role, under, port| Worker::start(run, plan, role, under, port, mapping.as_ref(), backend.name);
        let mut server = plan.with_server.then(|| start(SERVER, backend.server, 0)).transpose()?;
        let port = match &mut server {
            Some(server) => server.number()?,
            None => 0,
        };
        Ok(Self { client: start(CLIENT, backend.client, port)?, server })
    }
}

/// One of [`Strangers`], until it is dropped.
#[derive(Debug)]
pub(crate) struct Stranger {
    _worker: Worker,
}

impl Stranger {
    /// Starts those of a plan. They are at work when this returns.
    pub(crate) fn start_all(run: &Run, plan: &Plan) -> Result<Vec<Self>, Trouble> {
        let words = vec!["compute".to_owned(), plan.strangers.nice.to_string()];
        let theirs = Plan { words, placement: Placement::Free, ..plan.clone() };
        let start = || -> Result<Self, Trouble> {
            let mut worker = Worker::start(run, &theirs, CLIENT, Under::Libc, 0, None, "libc")?;
            worker.number()?;
            Ok(Self { _worker: worker })
        };
        (0..plan.strangers.count).map(|_| start()).collect()
    }
}

#[derive(Debug)]
struct Worker {
    child: Child,
    answers: ChildStdout,
    label: String,
}

impl Worker {
    fn start(
        run: &Run,
        plan: &Plan,
        role: &str,
        under: Under,
        port: u64,
        mapping: Option<&OwnedFd>,
        backend: &str,
    ) -> Result<Self, Trouble> {
        let label = format!("the {role} of `{}` with {backend}", plan.words.join(" "));
        let cpus = net::processors();
        let cpu = match plan.placement {
            Placement::Free => None,
            Placement::OneCore => Some(cpus[0]),
            Placement::TwoCores if role == SERVER => Some(cpus[cpus.len() - 1]),
            Placement::TwoCores => Some(cpus[0]),
        };
        let ring = match (under, mapping) {
            (Under::Ring(copying, waiting), Some(file)) => Some((file.as_raw_fd(), copying, waiting)),
            _ => None,
        };
        let mut command = run.command(under, SELF);
        command.args(Job::arguments(role, port, cpu, ring)).args(&plan.words);
        if let Some((fd, ..)) = ring {
            let hand_on = move || {
                // SAFETY: this call takes no pointers.
                unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
                Ok(())
            };
            // SAFETY: `hand_on` makes one system call, allocates nothing and takes no lock.
            unsafe { command.pre_exec(hand_on) };
        }
        let mut child = run::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let answers = child.stdout.take().expect("piped");
        Ok(Self { child, answers, label })
    }

    fn ask(&mut self, count: u64) -> Result<(), Trouble> {
        let requests = self.child.stdin.as_mut().expect("piped");
        requests.write_all(&count.to_ne_bytes()).map_err(|_| self.died())
    }

    fn number(&mut self) -> Result<u64, Trouble> {
        let mut wanted = libc::pollfd { fd: self.answers.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is passed and lives over the call.
        let ready = unsafe { libc::poll(&raw mut wanted, 1, PATIENCE_MS) };
        if ready == 0 {
            return Err(Trouble(format!("{} gave no answer for {} s", self.label, PATIENCE_MS / 1000)));
        }
        let mut bytes = [0; 8];
        self.answers.read_exact(&mut bytes).map_err(|_| self.died())?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn answer(&mut self) -> Result<[u64; 4], Trouble> {
        Ok([self.number()?, self.number()?, self.number()?, self.number()?])
    }

    fn died(&mut self) -> Trouble {
        let how = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        Trouble(format!("{} ended early ({how})", self.label))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a worker that answers by what it prints.
pub(crate) fn output(word: &str) -> Result<String, Trouble> {
    let mut command = Command::new(SELF);
    command.args(Job::arguments(CLIENT, 0, None, None)).arg(word).env_remove("LD_PRELOAD");
    Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
}
