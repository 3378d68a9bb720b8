//! The `sockshim` command.
//!
//! One module per sub-command; `args` says what can be asked for and nothing else. The modules do not
//! print errors: they return a [`Failure`], which is printed here.

#![deny(unsafe_code)]

mod args;
mod bench;
mod connections;
mod demo;
mod program;
mod run;
#[expect(unsafe_code, reason = "it runs before main, and between fork and exec")]
mod signals;
mod ss;

use std::fmt::{self, Display};
use std::io;
use std::process::ExitCode;

use args::Command;
use clap::Parser as _;

fn main() -> ExitCode {
    if sockshim_bench::work_if_asked() {
        return ExitCode::SUCCESS;
    }
    let args = args::Args::parse();
    let outcome = match args.command {
        Command::Run(args) => run::run(&args),
        Command::Ss(args) => ss::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match outcome {
        Ok(code) => code,
        // Whoever read our output has seen enough of it.
        Err(failure) if failure.broken_pipe => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sockshim: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

/// The reason why a command ends without having done its work.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
    broken_pipe: bool,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), broken_pipe: false }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<sockshim_bench::Trouble> for Failure {
    fn from(trouble: sockshim_bench::Trouble) -> Self {
        Self::new(1, trouble.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { code: 1, message: error.to_string(), broken_pipe: error.kind() == io::ErrorKind::BrokenPipe }
    }
}
