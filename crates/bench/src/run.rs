//! One run: what all processes of it share, and what must not outlive it.
//!
//! # Safety
//!
//! The calls here take pointers to local, initialised values only.

use crate::Trouble;
use crate::way::Under;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

/// A private folder for the ends to meet in, gone with the value.
#[derive(Debug)]
pub struct Run {
    library: PathBuf,
    folder: PathBuf,
    /// Shorter and fewer rounds: a rough idea.
    pub quick: bool,
}

impl Run {
    /// With this `libsockshim.so` under test.
    pub fn new(library: &Path, quick: bool) -> Result<Self, Trouble> {
        if !library.is_file() {
            return Err(Trouble(format!("{}: there is no such file", library.display())));
        }
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("sockshim-bench-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| Trouble(format!("{}: {error}", folder.display())))?;
        Ok(Self { library: library.to_owned(), folder, quick })
    }

    /// Removes the folder and ends the process when the user interrupts it. Call it first, while there is one
    /// thread: the signals are blocked in all that come later.
    pub fn clean_up_when_interrupted(&self) {
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
        let folder = self.folder.clone();
        std::thread::spawn(move || {
            let mut signal = 0;
            // SAFETY: both pointers are those of local values.
            unsafe { libc::sigwait(&raw const signals, &raw mut signal) };
            INTERRUPTED.store(true, Ordering::SeqCst);
            end_children();
            let _ = std::fs::remove_dir_all(&folder);
            // By the signal, as if there had been nothing to do; shells look at it.
            // SAFETY: no pointers.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
            // SAFETY: a valid set, and a null old one.
            unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const signals, ptr::null_mut()) };
            // SAFETY: no pointers.
            unsafe { libc::raise(signal) };
        });
    }

    /// Never returns when the run is being interrupted: what fails then is no failure.
    pub fn wait_if_interrupted() {
        while INTERRUPTED.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    /// Where the programs of this run may keep files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program of the run: on what it is to run, in a process group of its own, and gone when we are.
    pub fn command(&self, under: Under, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_remove("LD_PRELOAD").env("SOCKSHIM_DIR", self.folder.join("meet")).process_group(0);
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

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Kills every child with its process group, so that nobody makes the folder anew.
fn end_children() {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<i32> = lists
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    for &pid in &children {
        // SAFETY: no pointers; a group whose leader is a child that nobody has waited for.
        unsafe { libc::kill(-pid, libc::SIGKILL) };
    }
    for &pid in &children {
        // SAFETY: a null pointer asks for no status.
        unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
    }
}
