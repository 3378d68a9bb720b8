//! `sockshim ss`: the live connections of this user.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use crate::Failure;
use crate::args::Ss;
use crate::connections::{self, Connection};

pub(crate) fn run(args: &Ss) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    let repaints = args.watch && out.is_terminal();
    loop {
        let connections = connections::connections().map_err(|error| {
            let (folder, _) = connections::folder();
            Failure::new(1, format!("the rendezvous folder {} cannot be used: {error}", folder.display()))
        })?;
        let mut text = Vec::new();
        if args.json {
            serde_json::to_writer(&mut text, &connections).map_err(io::Error::from)?;
            text.push(b'\n');
        } else {
            print(&mut text, &connections)?;
        }
        if repaints {
            // Home, and clear what is below.
            out.write_all(b"\x1b[H\x1b[J")?;
        }
        out.write_all(&text)?;
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        if !repaints && !args.json {
            out.write_all(b"\n")?;
        }
        out.flush()?;
        thread::sleep(Duration::from_secs(1));
    }
}

/// One line per end under a header; every column as wide as its widest cell.
fn print(out: &mut impl Write, connections: &[Connection]) -> io::Result<()> {
    let mut rows = vec![COLUMNS.map(|(title, _)| title.to_owned())];
    rows.extend(connections.iter().map(|end| COLUMNS.map(|(_, cell)| cell(end))));
    let widths: [usize; COLUMNS.len()] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

type Cell = fn(&Connection) -> String;

const COLUMNS: [(&str, Cell); 17] = [
    ("PROGRAM", |end| end.program.as_deref().map_or_else(unknown, printable)),
    ("PID", |end| end.pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
    ("FD", |end| shown(end.fd)),
    ("LOCAL", |end| shown(end.local)),
    ("PEER", |end| shown(end.peer)),
    ("PATH", |end| end.path.to_owned()),
    ("RECV-Q", |end| shown(end.ring_recv_q)),
    ("SEND-Q", |end| shown(end.ring_send_q)),
    ("SENT", |end| end.sent.to_string()),
    ("RECEIVED", |end| end.received.to_string()),
    ("KERNEL-SENT", |end| end.kernel_sent.to_string()),
    ("KERNEL-RECEIVED", |end| end.kernel_received.to_string()),
    ("BELLS", |end| end.doorbells.to_string()),
    ("SLEEPS", |end| end.sleeps.to_string()),
    ("UPGRADES", |end| end.upgrades.to_string()),
    ("SPILLS", |end| end.spills.to_string()),
    ("REASON", |end| end.reason_text.clone()),
];

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(unknown, |value| value.to_string())
}

fn unknown() -> String {
    "-".to_owned()
}

/// A program chooses its own name, and a terminal obeys control characters.
fn printable(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() || letter == ' ' { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_the_header() {
        let mut text = Vec::new();
        print(&mut text, &[]).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(text.starts_with("PROGRAM  PID  FD  LOCAL  PEER  PATH"), "{text}");
    }

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2J b\n"), "a?[2J?b?");
    }
}
