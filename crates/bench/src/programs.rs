//! Existing programs, unmodified: one server on libc and one on sockshim, with the clients run in turn.

mod memcached;
mod net_tools;
mod nginx;
mod postgres;
mod python;
mod redis;
mod ssh;

use crate::Trouble;
use crate::backend::Backend;
use crate::measurement::answer;
use crate::question::{Question, control_row};
use crate::results::{CONTROL, Measure, Row};
use crate::run::{self, Run};
use crate::workers::{Placement, Sample};
use crate::{net, probe};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program with its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    /// What must be installed.
    pub(crate) needs: &'static [&'static str],
    /// The user who runs it, if root may not.
    user: Option<&'static str>,
    start: fn(&Stage<'_>) -> Result<Server, Trouble>,
    matches: &'static [Match],
}

pub(crate) const REDIS: Program = redis::PROGRAM;
pub(crate) const NGINX: Program = nginx::PROGRAM;
pub(crate) const MEMCACHED: Program = memcached::PROGRAM;
pub(crate) const POSTGRES: Program = postgres::PROGRAM;
pub(crate) const SOCKPERF: Program = net_tools::SOCKPERF;
pub(crate) const IPERF3: Program = net_tools::IPERF3;
pub(crate) const PYTHON: Program = python::PROGRAM;
pub(crate) const SSH: Program = ssh::PROGRAM;

/// What a client does with the server.
#[derive(Debug)]
struct Match {
    row: &'static str,
    unit: &'static str,
    measure: Measure,
    placement: Placement,
    /// The client for so many operations, if it is not told for how long.
    client: fn(&Stage<'_>, u16, u64) -> Command,
    /// Operations of the first run; `None` for clients that run for a second.
    count: Option<u64>,
    /// From what the client printed in this time.
    outcome: fn(&str, Duration, u64) -> Option<Outcome>,
}

/// How the output of a client is read.
struct Outcome {
    ns_per_operation: f64,
    operations: f64,
}

impl Outcome {
    fn of_rate(per_second: f64, operations: f64) -> Self {
        Self { ns_per_operation: 1e9 / per_second, operations }
    }
}

/// Where a program runs: on what, and with which files.
struct Stage<'a> {
    run: &'a Run,
    backend: Backend,
    folder: PathBuf,
    user: Option<(u32, u32)>,
}

/// A running server, and all processes that it made.
struct Server {
    child: Child,
    port: u16,
}

impl Program {
    /// The first thing that is not installed.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        self.needs.iter().copied().find(|name| find(name).is_none())
    }

    /// Asks all questions about it, or one for a rough idea; `each` takes the answers as they come.
    pub(crate) fn ask(
        &self,
        run: &Run,
        group: &'static str,
        mut each: impl FnMut(&str, Result<Row, Trouble>),
    ) -> Result<(), Trouble> {
        let stage = |backend| Stage::new(run, backend, group, self.user);
        let libc = stage(Backend::LIBC)?;
        let libc_server = (self.start)(&libc)?;
        let beside =
            |other: &Stage<'_>, matches: &[Match], each: &mut dyn FnMut(&str, Result<Row, Trouble>)| {
                let server = (self.start)(other)?;
                for question in matches {
                    each(question.row, question.ask(group, [&libc, other], [&libc_server, &server]));
                }
                Ok(())
            };
        beside(
            &stage(Backend::SOCKSHIM)?,
            &self.matches[..if run.quick { 1 } else { self.matches.len() }],
            &mut each,
        )?;
        beside(&stage(Backend::CONTROL)?, &self.matches[..1], &mut each)
    }
}

impl Match {
    fn ask(
        &self,
        group: &'static str,
        stages: [&Stage<'_>; 2],
        servers: [&Server; 2],
    ) -> Result<Row, Trouble> {
        let quick = stages[0].run.quick;
        let before = probe::placement()?;
        let mut counts = [1; 2];
        for backend in 0..2 {
            servers[backend].place(self.placement);
            if let Some(first) = self.count {
                let ns = self.sample(stages[backend], servers[backend], first)?.figure;
                counts[backend] = (if quick { RUN_NS / 3.0 } else { RUN_NS } / ns).max(1.0) as u64;
            }
        }
        let mut rounds = Vec::new();
        for round in 0..if quick { 1 } else { ROUNDS } {
            let mut samples = vec![Sample::default(); 2];
            for backend in [round % 2, 1 - round % 2] {
                samples[backend] = self.sample(stages[backend], servers[backend], counts[backend])?;
            }
            rounds.push(samples);
        }
        let name =
            if stages[1].backend.name == CONTROL { control_row(self.row) } else { self.row.to_owned() };
        let question = Question::new(group, name, &[]).unit(self.unit).measure(self.measure);
        // Each round is a run of the client.
        let runs: Vec<_> = rounds.into_iter().map(|round| vec![round]).collect();
        let mut row = answer(&question, &stages.map(|stage| stage.backend), &runs, quick)
            .ok_or_else(|| Trouble("no rounds".to_owned()))?;
        stages[0].run.congestion().clone_into(&mut row.congestion);
        row.probes = before.zip(probe::placement()?).map(|(before, after)| [before, after]);
        Ok(row)
    }

    fn sample(&self, stage: &Stage<'_>, server: &Server, count: u64) -> Result<Sample, Trouble> {
        let mut command = (self.client)(stage, server.port, count);
        if self.placement != Placement::Free {
            let cpu = net::processors()[0];
            let pin = move || {
                net::pin_task(0, cpu);
                Ok(())
            };
            // SAFETY: `pin` makes one system call, allocates nothing and takes no lock.
            unsafe { command.pre_exec(pin) };
        }
        let server_before = server.cpu_time();
        let start = Instant::now();
        let mut child =
            run::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let mut output = String::new();
        // Nothing here says more on standard error than fits into a pipe.
        child.stdout.take().expect("piped").read_to_string(&mut output)?;
        let mut errors = child.stderr.take().expect("piped");
        let (status, client) = wait(&child)?;
        let elapsed = start.elapsed();
        if status != 0 {
            let mut text = String::new();
            errors.read_to_string(&mut text)?;
            return Err(Trouble(format!("with {}, the client failed: {}{output}", stage.backend.name, text)));
        }
        let server = server.cpu_time();
        let outcome = (self.outcome)(&output, elapsed, count)
            .ok_or_else(|| Trouble(format!("the client said {output:?}")))?;
        let each = |part: usize| {
            (client[part] + server[part].saturating_sub(server_before[part])) as f64 / outcome.operations
        };
        Ok(Sample {
            figure: outcome.ns_per_operation,
            user_ns: each(0),
            system_ns: each(1),
            operations: outcome.operations,
            took_ns: elapsed.as_nanos() as f64,
            on_pipe: None,
        })
    }
}

impl<'a> Stage<'a> {
    fn new(run: &'a Run, backend: Backend, group: &str, user: Option<&str>) -> Result<Self, Trouble> {
        // SAFETY: no arguments, always succeeds.
        let user = user.filter(|_| unsafe { libc::geteuid() } == 0).map(ids).transpose()?;
        let folder = run.scratch().join(format!("{group}-{}", backend.name));
        std::fs::create_dir(&folder)?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid))?;
            // The library may be where only root can read it.
            std::fs::copy(run.library(), folder.join(LIBRARY))?;
        }
        Ok(Self { run, backend, folder, user })
    }

    /// A program that takes part in this stage's backend.
    fn command(&self, name: &str) -> Command {
        self.prepared(self.run.command(self.backend.client, find(name).unwrap_or_else(|| name.into())))
    }

    /// A program that only prepares something.
    fn helper(&self, name: &str) -> Command {
        self.prepared(self.run.command(Backend::LIBC.client, find(name).unwrap_or_else(|| name.into())))
    }

    fn prepared(&self, mut command: Command) -> Command {
        command.current_dir(&self.folder);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid).env("SOCKSHIM_DIR", self.folder.join("meet"));
            if command.get_envs().any(|(name, value)| name == "LD_PRELOAD" && value.is_some()) {
                command.env("LD_PRELOAD", self.folder.join(LIBRARY));
            }
        }
        command
    }

    /// Starts a server, and waits until it accepts.
    fn serve(&self, mut command: Command, port: u16) -> Result<Server, Trouble> {
        let log = std::fs::File::create(self.folder.join("log"))?;
        let child = run::spawn(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log))?;
        let mut server = Server { child, port };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || start.elapsed() > Duration::from_secs(20) {
                let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(Trouble(format!(
                    "with {}, the server does not accept: {log}",
                    self.backend.name
                )));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

/// Runs a program to its end.
fn finish(mut command: Command) -> Result<(), Trouble> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Trouble(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

impl Server {
    /// Moves all its processes and threads.
    fn place(&self, placement: Placement) {
        let cpus = net::processors();
        let cpu = match placement {
            Placement::Free => return,
            Placement::OneCore => cpus[0],
            Placement::TwoCores => cpus[cpus.len() - 1],
        };
        for process in self.processes() {
            let tasks =
                std::fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten().flatten();
            for task in tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()) {
                net::pin_task(task, cpu);
            }
        }
    }

    /// User and system time in nanoseconds, with that of children that have ended.
    fn cpu_time(&self) -> [u64; 2] {
        let sums = self
            .processes()
            .into_iter()
            .fold([0; 2], |sum, process| [sum[0] + process.ticks[0], sum[1] + process.ticks[1]]);
        // SAFETY: no pointers.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1).unsigned_abs();
        sums.map(|ticks| ticks * 1_000_000_000 / per_second)
    }

    /// The child and its descendants: some servers give theirs groups of their own.
    fn processes(&self) -> Vec<Process> {
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let all: Vec<Process> =
            all.filter_map(|entry| Process::of(entry.file_name().to_str()?.parse().ok()?)).collect();
        let mut family = vec![self.child.id()];
        // Parents have lower numbers but for those that wrapped around, so look until nobody is found any more.
        loop {
            let more: Vec<u32> = all
                .iter()
                .filter(|process| family.contains(&process.parent) && !family.contains(&process.pid))
                .map(|process| process.pid)
                .collect();
            if more.is_empty() {
                break;
            }
            family.extend(more);
        }
        all.into_iter().filter(|process| family.contains(&process.pid)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let family = self.processes();
        // SAFETY: no pointers; a child that nobody has waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Who did not end with it.
        for process in family {
            if Process::of(process.pid).is_some_and(|now| now.started == process.started) {
                // SAFETY: no pointers; the number still is that process's.
                unsafe { libc::kill(process.pid.cast_signed(), libc::SIGKILL) };
            }
        }
    }
}

struct Process {
    pid: u32,
    parent: u32,
    started: u64,
    ticks: [u64; 2],
}

impl Process {
    /// proc_pid_stat(5).
    fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let parent = u32::try_from(number(4)?).ok()?;
        let ticks = [number(14)? + number(16)?, number(15)? + number(17)?];
        Some(Self { pid, parent, started: number(22)?, ticks })
    }
}

/// The exit status, and user and system time in nanoseconds.
fn wait(child: &Child) -> Result<(i32, [u64; 2]), Trouble> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: room for a status and a usage; a child that nobody has waited for.
    let waited = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
    if waited < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok((status, net::times(&usage))) }
}

/// The program called `name`, as a user's shell finds it or where distributions put servers.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let versions = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin"));
    // The distribution's own first: what is in front of it in PATH may be a script that starts something else.
    let mut folders = versions.chain(usual).chain(std::env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

fn ids(user: &str) -> Result<(u32, u32), Trouble> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.split(':').next() == Some(user));
    let number = |field: usize| line?.split(':').nth(field)?.parse().ok();
    number(2).zip(number(3)).ok_or_else(|| Trouble(format!("there is no user {user}")))
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, Trouble> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The number in front of or behind `mark`.
fn number_behind(text: &str, mark: &str) -> Option<f64> {
    let rest = text.split_once(mark)?.1.trim_start();
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// A file of 100 MB in the folder of the stage.
fn big_file(stage: &Stage<'_>) -> Result<PathBuf, Trouble> {
    let file = stage.folder.join("big");
    let block: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    std::fs::write(&file, block.repeat(100))?;
    Ok(file)
}

const LIBRARY: &str = "libsockshim.so";
/// How long a server that is told to end may take.
const PATIENCE: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
/// What a run of a counted client should take.
const RUN_NS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_named() {
        assert_eq!(Program { needs: &["sh", "no-such-program"], ..REDIS }.lacks(), Some("no-such-program"));
        assert_eq!(Program { needs: &["sh"], ..REDIS }.lacks(), None);
    }

    #[test]
    fn a_server_is_placed_counted_and_ended_with_its_children() {
        let child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let server = Server { child, port: 0 };
        let start = Instant::now();
        while server.processes().len() < 2 {
            assert!(start.elapsed() < Duration::from_secs(60), "no second process");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.place(Placement::OneCore);
        let pids: Vec<u32> = server.processes().iter().map(|process| process.pid).collect();
        for pid in &pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
            assert_eq!(allowed, Some(net::processors()[0].to_string().as_str()));
        }
        let processes = server.processes();
        drop(server);
        for process in processes {
            // A signal takes a moment, and nobody may have waited for the child's child yet.
            let file = format!("/proc/{}/stat", process.pid);
            while std::fs::read_to_string(&file).is_ok_and(|state| !state.contains(") Z ")) {
                assert!(start.elapsed() < Duration::from_secs(60), "still there");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
