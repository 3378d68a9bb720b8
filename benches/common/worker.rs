//! The processes that are measured: how the bench starts and asks them, and what they see of it.

use super::{Under, Way, net};
use libc::c_int;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

/// Says on the command line that a process is a worker.
const FLAG: &str = "--worker";
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

/// What the workers of a contest do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What the bench's `work` makes of it.
    pub(crate) words: Vec<String>,
    pub(crate) placement: Placement,
    /// A server and a client, or a client alone.
    pub(crate) with_server: bool,
}

/// What one round of operations took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lap {
    pub(crate) ns: u64,
    /// User and system time of both ends.
    pub(crate) cpu_ns: u64,
    pub(crate) on_pipe: bool,
}

/// The processes of one way.
#[derive(Debug)]
pub(crate) struct Crew {
    server: Option<Worker>,
    client: Worker,
}

impl Crew {
    pub(crate) fn start(plan: &Plan, way: &Way) -> Self {
        let label = |role: &str| format!("{role} of {:?}, {}", plan.words, way.name);
        let mut server =
            plan.with_server.then(|| Worker::start(plan, "server", way.server, 0, label("server")));
        let port = server.as_mut().map_or(0, |server| server.number());
        Self { client: Worker::start(plan, "client", way.client, port, label("client")), server }
    }

    /// Does `count` operations.
    pub(crate) fn run(&mut self, count: u64) -> Lap {
        if let Some(server) = &mut self.server {
            server.ask(count);
            server.number(); // it is about to serve
        }
        self.client.ask(count);
        let [ns, client_cpu, on_pipe] = self.client.answer();
        let [_, server_cpu, _] = self.server.as_mut().map_or([0; 3], Worker::answer);
        Lap { ns, cpu_ns: client_cpu + server_cpu, on_pipe: on_pipe == 1 }
    }
}

#[derive(Debug)]
struct Worker {
    child: Child,
    answers: ChildStdout,
    label: String,
}

impl Worker {
    fn start(plan: &Plan, role: &str, under: Under, port: u64, label: String) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(&program);
        command.args([FLAG, role, &port.to_string()]);
        let cpus = net::processors();
        let cpu = match plan.placement {
            Placement::Free => None,
            Placement::OneCore => Some(cpus[0]),
            Placement::TwoCores => Some(if role == "server" { cpus[cpus.len() - 1] } else { cpus[0] }),
        };
        command.arg(cpu.map_or("-".to_owned(), |cpu| cpu.to_string())).args(&plan.words);
        command.env_remove("LD_PRELOAD").env("SOCKSHIM_DIR", rendezvous());
        if let Under::Sockshim(variables) = under {
            // `make bench` names the one of the release build; Cargo builds another beside the bench.
            let library = std::env::var_os("BENCH_LIBRARY")
                .map_or_else(|| program.with_file_name("libsockshim.so"), PathBuf::from);
            assert!(library.exists(), "{} is missing", library.display());
            command.env("LD_PRELOAD", library).envs(variables.iter().copied());
        }
        let die_with_the_bench = || {
            // SAFETY: this call takes no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: `die_with_the_bench` makes one system call, allocates nothing and takes no lock.
        unsafe { command.pre_exec(die_with_the_bench) };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = child.stdout.take().expect("piped");
        Self { child, answers, label }
    }

    fn ask(&mut self, count: u64) {
        self.child.stdin.as_mut().expect("piped").write_all(&count.to_ne_bytes()).unwrap();
    }

    fn number(&mut self) -> u64 {
        let mut wanted = libc::pollfd { fd: self.answers.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is passed and lives over the call.
        let ready = unsafe { libc::poll(&raw mut wanted, 1, PATIENCE_MS) };
        assert!(ready == 1, "no answer for {} s: {}", PATIENCE_MS / 1000, self.label);
        let mut bytes = [0; 8];
        self.answers.read_exact(&mut bytes).unwrap_or_else(|_| panic!("died: {}", self.label));
        u64::from_ne_bytes(bytes)
    }

    fn answer(&mut self) -> [u64; 3] {
        [self.number(), self.number(), self.number()]
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A rendezvous folder of this run's own; [`remove_rendezvous`] removes it.
fn rendezvous() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(format!("/dev/shm/sockshim-bench-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        folder
    })
}

pub(crate) fn remove_rendezvous() {
    let _ = std::fs::remove_dir_all(rendezvous());
}

/// A worker's view of what it shall do.
#[derive(Debug)]
pub(crate) struct Job {
    role: String,
    port: u16,
    words: Vec<String>,
}

impl Job {
    /// The job of this process, when it was started as a worker.
    pub(crate) fn of_this_process() -> Option<Self> {
        let mut args = std::env::args().skip(1);
        if args.next()? != FLAG {
            return None;
        }
        let role = args.next()?;
        let port = args.next()?.parse().ok()?;
        if let Ok(cpu) = args.next()?.parse() {
            net::pin(cpu);
        }
        Some(Self { role, port, words: args.collect() })
    }

    /// Starts a worker that answers by what it prints.
    pub(crate) fn output(word: &str) -> String {
        let program = std::env::current_exe().unwrap();
        let output = Command::new(program).args([FLAG, "client", "0", "-", word]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.words.first().is_some_and(|first| first == word)
    }

    pub(crate) fn is_server(&self) -> bool {
        self.role == "server"
    }

    pub(crate) fn word(&self, index: usize) -> &str {
        &self.words[index]
    }

    pub(crate) fn number(&self, index: usize) -> usize {
        self.words[index].parse().expect("the bench passes a number here")
    }

    /// The server's listening socket; the client learns its port.
    pub(crate) fn listen(&self) -> c_int {
        self.listen_on(&[Ipv4Addr::LOCALHOST])[0]
    }

    /// Listening sockets on the same port of several addresses.
    pub(crate) fn listen_on(&self, addresses: &[Ipv4Addr]) -> Vec<c_int> {
        let mut port = 0;
        let sockets = addresses
            .iter()
            .map(|&address| {
                let (fd, given) = net::listen(address, port);
                port = given;
                fd
            })
            .collect();
        tell(u64::from(port));
        sockets
    }

    /// A connection to the server.
    pub(crate) fn connect(&self) -> c_int {
        self.connect_to(Ipv4Addr::LOCALHOST)
    }

    pub(crate) fn connect_to(&self, address: Ipv4Addr) -> c_int {
        net::connect(address, self.port)
    }

    /// Does rounds of `operations` until the bench has enough. `fd` is the connection that is measured, or -1.
    pub(crate) fn serve(&self, fd: c_int, mut operations: impl FnMut(u64)) {
        let mut count = [0; 8];
        while net::read_all(0, &mut count) {
            if self.is_server() {
                tell(0);
            }
            let cpu = net::cpu_time();
            let start = Instant::now();
            operations(u64::from_ne_bytes(count));
            let ns = start.elapsed().as_nanos() as u64;
            let cpu = net::cpu_time() - cpu;
            tell(ns);
            tell(cpu);
            tell(net::path(fd));
        }
    }
}

/// One number to the bench.
fn tell(number: u64) {
    net::write_all(1, &number.to_ne_bytes());
}
