//! One run: what all processes of it share, and what must not outlive it.
//!
//! # Safety
//!
//! The calls here take pointers to local, initialised values only.

use crate::Trouble;
use crate::backend::Under;
use crate::network::{self, Congestion};
use parking_lot::Mutex;
use std::fs::Permissions;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A private folder for the ends to meet in, gone with the value.
#[derive(Debug)]
pub struct Run {
    library: PathBuf,
    folder: TempDir,
    /// For files of programs; large ones, so not in memory.
    scratch: TempDir,
    congestion: Congestion,
    /// Shorter and fewer rounds: a rough idea.
    pub quick: bool,
}

impl Run {
    /// With this `libsockshim.so` under test. An interrupt ends the process with all that it started, and removes
    /// its files. Call it while there is one thread: the signals are blocked in those that come later.
    pub fn new(library: &Path, quick: bool) -> Result<Self, Trouble> {
        if !library.is_file() {
            return Err(Trouble(format!("{}: there is no such file", library.display())));
        }
        let congestion = network::choose();
        let signals = block_signals();
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let name = format!("sockshim-bench-{}-", std::process::id());
        let make = |base: &Path, mode| {
            let permissions = Permissions::from_mode(mode);
            tempfile::Builder::new().prefix(&name).permissions(permissions).tempdir_in(base)
        };
        let folder = make(&base, 0o700)?;
        // Others may pass through to a folder of their own.
        let scratch = make(&std::env::temp_dir(), 0o711)?;
        clean_up_when_interrupted(signals, [&folder, &scratch].map(|folder| folder.path().to_owned()));
        Ok(Self { library: library.to_owned(), folder, scratch, congestion, quick })
    }

    /// Never returns when the run is being interrupted: what fails then is no failure.
    pub fn wait_if_interrupted() {
        while INTERRUPTED.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    /// The congestion control of its connections, in words.
    #[must_use]
    pub fn congestion(&self) -> &str {
        &self.congestion.words
    }

    /// Where the programs of this run may keep files.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn library(&self) -> &Path {
        &self.library
    }

    /// A program of the run: on what it is to run, in a process group of its own, and gone when we are.
    pub(crate) fn command(&self, under: Under, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_remove("LD_PRELOAD")
            .env("SOCKSHIM_DIR", self.folder.path().join("meet"))
            .process_group(0);
        if let Some(name) = self.congestion.by_socket {
            command.env(network::VARIABLE, name);
        }
        if let Under::Sockshim(variables) = under {
            command.env("LD_PRELOAD", &self.library).envs(variables.iter().copied());
        }
        let parent = std::process::id();
        let prepare = move || {
            let mut none = MaybeUninit::uninit();
            // SAFETY: `none` is valid for writing.
            unsafe { libc::sigemptyset(none.as_mut_ptr()) };
            // SAFETY: initialised by the call before.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) };
            // SAFETY: this call takes no pointers.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: no arguments. Who asked for the signal too late would never get it.
            if unsafe { libc::getppid() }.unsigned_abs() != parent {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        };
        // SAFETY: `prepare` makes four async-signal-safe calls, allocates nothing and takes no lock.
        unsafe { command.pre_exec(prepare) };
        command
    }
}

/// From now on only [`clean_up_when_interrupted`] hears of them.
fn block_signals() -> libc::sigset_t {
    let mut signals = MaybeUninit::uninit();
    // SAFETY: `signals` is valid for writing.
    unsafe { libc::sigemptyset(signals.as_mut_ptr()) };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: initialised above.
        unsafe { libc::sigaddset(signals.as_mut_ptr(), signal) };
    }
    // SAFETY: initialised above.
    let signals = unsafe { signals.assume_init() };
    // SAFETY: a valid set, and a null old one.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut()) };
    signals
}

fn clean_up_when_interrupted(signals: libc::sigset_t, folders: [PathBuf; 2]) {
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both pointers are those of local values.
        unsafe { libc::sigwait(&raw const signals, &raw mut signal) };
        INTERRUPTED.store(true, Ordering::SeqCst);
        let _for_ever = MAKING.lock();
        end_children();
        for folder in folders {
            // Nothing better can be done about a folder that does not go away.
            let _ = std::fs::remove_dir_all(folder);
        }
        // By the signal, as if there had been nothing to do; shells look at it.
        // SAFETY: no pointers.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: a valid set, and a null old one.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, ptr::null_mut()) };
        // SAFETY: no pointers.
        unsafe { libc::raise(signal) };
    });
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Held while a child is made, and for good by who ends the children: so it knows all of them.
static MAKING: Mutex<()> = Mutex::new(());

/// Starts a program of the run.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _making = MAKING.lock();
    command.spawn()
}

/// Ends every child with its process group, so that nobody makes the folder anew; all at once, so that nobody sees another
/// one gone. Servers get a moment to put their things away.
fn end_children() {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let mut children: Vec<i32> = lists
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let signal = |children: &[i32], signal| {
        for &pid in children {
            // SAFETY: no pointers; a group whose leader is a child that nobody has waited for.
            unsafe { libc::kill(-pid, signal) };
        }
    };
    for each in [libc::SIGSTOP, libc::SIGTERM, libc::SIGCONT] {
        signal(&children, each);
    }
    let start = Instant::now();
    while !children.is_empty() {
        if start.elapsed() > PATIENCE {
            signal(&children, libc::SIGKILL);
        }
        // SAFETY: a null pointer asks for no status. An error means that somebody else has waited for it.
        children.retain(|&pid| unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) } == 0);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How long a server that is told to end may take.
const PATIENCE: Duration = Duration::from_secs(3);
