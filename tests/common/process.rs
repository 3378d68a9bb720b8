//! Real programs in tests: started with or without sockshim, watched, and cleaned up after.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::{libsockshim, sockshim};

/// How a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// With libc alone.
    Native,
    /// Under `LD_PRELOAD`, everything else as users get it.
    Preloaded,
    /// Under `LD_PRELOAD`, on a pipe before the first byte.
    AtOnce,
}

/// The modes of both ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) server: Mode,
    pub(crate) client: Mode,
}

impl Ends {
    /// Both ends preloaded, one end only, and neither, which is what the others are compared with.
    pub(crate) const ALL: [Self; 7] = [
        Self::new(Mode::Native, Mode::Native),
        Self::new(Mode::Preloaded, Mode::Preloaded),
        Self::new(Mode::AtOnce, Mode::AtOnce),
        Self::new(Mode::Preloaded, Mode::Native),
        Self::new(Mode::AtOnce, Mode::Native),
        Self::new(Mode::Native, Mode::Preloaded),
        Self::new(Mode::Native, Mode::AtOnce),
    ];

    /// Both ends preloaded.
    pub(crate) const BOTH: [Self; 2] =
        [Self::new(Mode::Preloaded, Mode::Preloaded), Self::new(Mode::AtOnce, Mode::AtOnce)];

    const fn new(server: Mode, client: Mode) -> Self {
        Self { server, client }
    }
}

/// A folder for the files of one test and a private rendezvous folder; both go away with the value.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    rendezvous: TempDir,
    library: PathBuf,
    sockshim: PathBuf,
    /// Who runs the programs, if not the user of the test.
    user: Option<(u32, u32)>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let memory = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
        let [folder, rendezvous] = [std::env::temp_dir(), memory].map(|base| {
            let private = Permissions::from_mode(0o700);
            tempfile::Builder::new().prefix("sockshim-test-").permissions(private).tempdir_in(base).unwrap()
        });
        Self { folder, rendezvous, library: libsockshim(), sockshim: sockshim(), user: None }
    }

    /// For programs that refuse to run as root: another user runs them, if the test is root's.
    pub(crate) fn of(user: &str) -> Self {
        let mut scratch = Self::new();
        // SAFETY: `geteuid` takes nothing and always succeeds.
        if unsafe { libc::geteuid() } != 0 {
            return scratch;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let entry = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let entry =
            entry.into_iter().find(|fields| fields[0] == user).unwrap_or_else(|| panic!("no user {user}"));
        let [uid, gid] = [entry[2], entry[3]].map(|number| number.parse().unwrap());
        // The build folder may not be open to everybody.
        for tool in [&mut scratch.library, &mut scratch.sockshim] {
            let copy = scratch.folder.path().join(tool.file_name().unwrap());
            fs::copy(&*tool, &copy).unwrap();
            *tool = copy;
        }
        for folder in [scratch.path(), scratch.rendezvous()] {
            std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
        }
        scratch.user = Some((uid, gid));
        scratch
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The live connections of the programs in this folder, as `sockshim ss --json` lists them.
    pub(crate) fn connections(&self) -> Vec<serde_json::Value> {
        let output = self.command(Mode::Native, &self.sockshim).args(["ss", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn rendezvous(&self) -> &Path {
        self.rendezvous.path()
    }

    /// What is in the rendezvous folder once another program has started and ended.
    pub(crate) fn left(&self) -> Vec<OsString> {
        let names = || {
            let entries = fs::read_dir(self.rendezvous()).ok();
            entries.map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        };
        // A program looks at a limited number of files while it starts.
        for _ in 0..20 {
            if names().is_none_or(|names: Vec<_>| names.is_empty()) {
                break;
            }
            let started = self.command(Mode::Preloaded, "true").status();
            assert!(started.is_ok_and(|status| status.success()) || thread::panicking(), "`true` failed");
        }
        // A killed process keeps its number until somebody has waited for it, so a program that starts may take it for
        // a live one. `sockshim ss` looks at all files.
        if names().is_some_and(|names: Vec<_>| !names.is_empty()) {
            let _ = self.command(Mode::Native, &self.sockshim).arg("ss").output();
        }
        names().unwrap_or_default()
    }

    /// A command that runs `program` in this folder, in `mode`.
    pub(crate) fn command(&self, mode: Mode, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.folder).env_remove("LD_PRELOAD");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SOCKSHIM_") {
                command.env_remove(name);
            }
        }
        // Also for programs that preload the library by themselves or are linked with it.
        command.env("SOCKSHIM_DIR", self.rendezvous());
        if mode != Mode::Native {
            command.env("LD_PRELOAD", &self.library);
        }
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        if mode == Mode::AtOnce {
            command.env("SOCKSHIM_UPGRADE_AFTER", "0");
        }
        command
    }

    /// Starts `command` in the background.
    pub(crate) fn start(&self, command: &mut Command) -> Program {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [stdout, stderr] = ["out", "err"].map(|kind| self.folder.path().join(format!("{number}.{kind}")));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .process_group(0);
        let die_with_the_test = || {
            // SAFETY: this call takes no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            Ok(())
        };
        // SAFETY: `die_with_the_test` makes one system call, allocates nothing and takes no lock.
        unsafe { command.pre_exec(die_with_the_test) };
        let name = format!("{:?}", command.get_program());
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Program { name, child, status: None, stdout, stderr }
    }

    /// Runs `command` to its end, which must be a success, and returns its standard output.
    #[track_caller]
    pub(crate) fn output(&self, command: &mut Command) -> String {
        self.start(command).success()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let left = self.left();
        if RENDEZVOUS_IS_LEFT_EMPTY && !thread::panicking() {
            assert!(left.is_empty(), "left in the rendezvous folder: {left:?}");
        }
    }
}

/// Whether nothing may remain in the rendezvous folder when all programs of a test have ended. Those that were killed
/// could not clean up: the next program that starts does it for them.
const RENDEZVOUS_IS_LEFT_EMPTY: bool = true;

/// A program in the background, in a process group of its own that does not outlive the value.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Program {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap()).into_owned()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// Waits until the program has said on standard output on which port it listens.
    #[track_caller]
    pub(crate) fn port(&mut self) -> String {
        self.until("says its port", |program| {
            let text = program.stdout();
            let (_, rest) = text.split_once("listening on port ")?;
            rest.split_once('\n').map(|(port, _)| port.to_owned())
        })
    }

    /// Waits until something accepts connections on `port`.
    #[track_caller]
    pub(crate) fn accepts_on(&mut self, port: u16) {
        self.until("accepts connections", |_| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    }

    /// Waits until `seen` finds what it looks for. The program must not end before.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, what: &str, mut seen: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = seen(self) {
                return value;
            }
            if let Some(status) = self.ended() {
                // It may have happened between the two looks.
                return seen(self).unwrap_or_else(|| {
                    panic!("{} ended ({status}) before it {what}\n{}", self.name, self.report())
                });
            }
            self.watchdog(start, what);
        }
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            self.watchdog(start, "ends");
        }
    }

    /// Waits for the end, which must be a success, and returns the standard output.
    #[track_caller]
    pub(crate) fn success(mut self) -> String {
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{}", self.name, self.report());
        self.stdout()
    }

    /// Sends a signal to the program alone.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        assert!(self.status.is_none(), "{} has ended", self.name);
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: `kill` takes no pointers, and the process is a child that was not waited for.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits for the end, which must not be a success.
    #[track_caller]
    pub(crate) fn failure(mut self) -> ExitStatus {
        let status = self.wait();
        assert!(!status.success(), "{} should have failed\n{}", self.name, self.report());
        status
    }

    /// Kills the program and the processes that it made, as SIGKILL does: in the middle of whatever it does.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    #[track_caller]
    fn watchdog(&mut self, start: Instant, what: &str) {
        if start.elapsed() > HANGS_AFTER {
            let report = self.report();
            self.end();
            panic!("{}: waited {HANGS_AFTER:?} until it {what}\n{report}", self.name);
        }
        thread::sleep(Duration::from_millis(5));
    }

    fn report(&self) -> String {
        format!("standard output:\n{}\nstandard error:\n{}", self.stdout(), self.stderr())
    }

    fn end(&mut self) {
        let group = libc::pid_t::try_from(self.child.id()).unwrap();
        // While the leader is not waited for, or a member lives, nobody else can get this group number.
        if self.status.is_none() || !members(group).is_empty() {
            // SAFETY: `killpg` takes no pointers, and the group is the one that `start` made.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        let start = Instant::now();
        while !members(group).is_empty() && start.elapsed() < HANGS_AFTER {
            thread::sleep(Duration::from_millis(1));
        }
        let left = members(group);
        assert!(left.is_empty() || thread::panicking(), "{} left processes behind: {left:?}", self.name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// The live processes of a group; zombies are only waiting for their parent.
fn members(group: libc::pid_t) -> Vec<String> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // pid (name) state parent group ...; the name may hold anything
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        if fields[0] != "Z" && fields[0] != "X" && fields[2].parse() == Ok(group) {
            members.push(stat.trim_end().chars().take(60).collect());
        }
    }
    members
}

/// The path of a program. A missing one is skipped loudly, or is a failure if `SOCKSHIM_TEST_REQUIRE=1`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        missing(&format!("{name} is not installed"));
    }
    found
}

/// Something that `.ci/run` installs is missing: skipped loudly, or a failure if `SOCKSHIM_TEST_REQUIRE=1`.
#[track_caller]
pub(crate) fn missing(what: &str) {
    assert!(
        std::env::var_os("SOCKSHIM_TEST_REQUIRE").is_none_or(|value| value != "1"),
        "{what}, and SOCKSHIM_TEST_REQUIRE=1 asks for it"
    );
    skip(what);
}

/// Says that a test, or a part of one, was not run: a right is missing, which no package gives. This goes around
/// the capturing of test output.
pub(crate) fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A port that nobody uses, below the range that the kernel takes ports for clients from.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 37 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + number % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Long enough for the slowest machine, and no bound on how long a test may take.
const HANGS_AFTER: Duration = Duration::from_secs(120);
