//! A program of the demo: started, listened to, and its CPU time taken when it ends.
//!
//! # Safety
//! The only unsafe call is `wait4` on a process of our own, with pointers to local values.

use std::io::{BufRead as _, BufReader, Read as _};
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::Failure;

/// A running program, killed when dropped.
pub(super) struct Child {
    name: String,
    process: std::process::Child,
    output: BufReader<ChildStdout>,
    ended: bool,
}

/// What is known about a program that has ended.
pub(super) struct Ended {
    pub(super) output: String,
    /// User and system time.
    pub(super) cpu: Duration,
}

impl Child {
    pub(super) fn start(mut command: Command) -> Result<Self, Failure> {
        let name = format!("{command:?}");
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(1, format!("{name}: {error}")))?;
        let output =
            process.stdout.take().ok_or_else(|| Failure::new(1, "a child without a standard output"))?;
        Ok(Self { name, process, output: BufReader::new(output), ended: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until a server says on which port it listens.
    pub(super) fn port(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().strip_prefix("listening on port ").map(str::to_owned).ok_or_else(|| {
            Failure::new(1, format!("{} did not say on which port it listens, but {line:?}", self.name))
        })
    }

    /// Waits for the end, which must be a success.
    pub(super) fn finish(mut self) -> Result<Ended, Failure> {
        let mut output = String::new();
        self.output.read_to_string(&mut output)?;
        let (status, cpu) = self.wait()?;
        if status.success() {
            Ok(Ended { output, cpu })
        } else {
            Err(Failure::new(1, format!("{}: {status}\n{output}", self.name)))
        }
    }

    fn wait(&mut self) -> Result<(ExitStatus, Duration), Failure> {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        let pid =
            libc::pid_t::try_from(self.process.id()).map_err(|error| Failure::new(1, error.to_string()))?;
        // SAFETY: `status` and `usage` are valid for writing, and a zeroed rusage is a valid value.
        let (waited, usage) =
            unsafe { (libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()), usage.assume_init()) };
        if waited != pid {
            return Err(std::io::Error::last_os_error().into());
        }
        self.ended = true;
        Ok((ExitStatus::from_raw(status), duration(usage.ru_utime) + duration(usage.ru_stime)))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself meanwhile, which is just as good.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
}
