//! The event log that the library writes when `SOCKSHIM_TRACE` names a file; docs/trace.md is its format.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::path::Path;

#[derive(Debug, Default)]
pub(super) struct Trace(Vec<Line>);

#[derive(Debug)]
struct Line {
    pid: u32,
    fd: u32,
    phase: Phase,
}

/// A phase in the life of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Create,
    Connect { local: String, peer: String, path: String },
    Transfer { sent: u64, received: u64, path: String },
    Disconnect { sent: u64, received: u64, path: String },
}

impl Trace {
    /// A file that does not exist is an empty trace.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Lines of a kind that is not known here are passed over: a later version may write more.
    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Line::parse).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What process `pid` did, one line of text per phase.
    pub(super) fn of(&self, pid: u32) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .filter(move |line| line.pid == pid)
            .map(|line| format!("descriptor {:<3} {}", line.fd, line.phase))
    }
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (&[name, pid, fd], rest) = words.split_first_chunk()?;
        let phase = match (name, rest) {
            ("create", _) => Phase::Create,
            ("connect", &[local, peer, path, ..]) => {
                Phase::Connect { local: local.into(), peer: peer.into(), path: path.into() }
            }
            ("transfer", &[sent, received, path, ..]) => Phase::Transfer {
                sent: sent.parse().ok()?,
                received: received.parse().ok()?,
                path: path.into(),
            },
            ("disconnect", &[path, sent, received, ..]) => Phase::Disconnect {
                sent: sent.parse().ok()?,
                received: received.parse().ok()?,
                path: path.into(),
            },
            _ => return None,
        };
        Some(Self { pid: pid.parse().ok()?, fd: fd.parse().ok()?, phase })
    }
}

impl Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => write!(f, "create      a socket"),
            Self::Connect { local, peer, path } => {
                write!(f, "connect     {local} to {peer}, {}", in_words(path))
            }
            Self::Transfer { sent, received, path } => {
                write!(f, "transfer    {sent} bytes sent, {received} received, {}", in_words(path))
            }
            Self::Disconnect { sent, received, path } => {
                write!(f, "disconnect  after {sent} bytes sent, {received} received, {}", in_words(path))
            }
        }
    }
}

fn in_words(path: &str) -> String {
    match path {
        "pipe" => "path pipe (shared memory)".into(),
        "host" => "path host (the kernel)".into(),
        other => format!("path {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_connection_are_understood() {
        let trace = Trace::parse(
            "create 7 3\nconnect 7 3 127.0.0.1:1 127.0.0.1:2 pipe\nfuture 7 3 x\ntransfer 7 3 10 20 pipe\n\
             create 8 4\ndisconnect 7 3 pipe 10 20\n",
        );
        let phases: Vec<&Phase> =
            trace.0.iter().filter(|line| line.pid == 7).map(|line| &line.phase).collect();
        assert_eq!(
            phases,
            [
                &Phase::Create,
                &Phase::Connect {
                    local: "127.0.0.1:1".into(),
                    peer: "127.0.0.1:2".into(),
                    path: "pipe".into()
                },
                &Phase::Transfer { sent: 10, received: 20, path: "pipe".into() },
                &Phase::Disconnect { sent: 10, received: 20, path: "pipe".into() },
            ]
        );
        assert_eq!(trace.of(8).count(), 1);
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        assert!(Trace::parse("\ncreate\nconnect 1 2\ntransfer 1 2 x y pipe\ncreate a b\n").is_empty());
    }
}
