//! A program of the demo: started and listened to.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStdout, Command, Stdio};

use crate::Failure;

/// A running program, killed when dropped.
pub(super) struct Child {
    name: String,
    process: std::process::Child,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(super) fn start(command: &mut Command) -> Result<Self, Failure> {
        let name = format!("{command:?}");
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(1, format!("{name}: {error}")))?;
        let output =
            process.stdout.take().ok_or_else(|| Failure::new(1, "a child without a standard output"))?;
        Ok(Self { name, process, output: BufReader::new(output) })
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

    /// Waits for the end, which must be a success, and returns what the program said.
    pub(super) fn finish(mut self) -> Result<String, Failure> {
        let mut output = String::new();
        self.output.read_to_string(&mut output)?;
        let status = self.process.wait()?;
        if status.success() {
            Ok(output)
        } else {
            Err(Failure::new(1, format!("{}: {status}\n{output}", self.name)))
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself meanwhile, which is just as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
