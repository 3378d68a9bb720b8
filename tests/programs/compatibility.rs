//! The README's compatibility table: the tests fill it, and compare what they saw with it.
//!
//! `make programs` writes what was seen into the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;

use crate::process::{Program, Scratch};

/// Every program with a row. A test that sees another path than the table says fails.
const PROGRAMS: &[&str] = &[
    "haproxy",
    "iperf3",
    "Java",
    "memcached",
    "Mosquitto",
    "nginx",
    "Node.js",
    "OpenSSH",
    "PostgreSQL",
    "Python",
    "redis",
    "socat",
];

const BEGIN: &str = "<!-- programs: written by the tests, see CONTRIBUTING.md -->\n";
const END: &str = "<!-- end of programs -->\n";
const HEAD: &str =
    "| program | version | what runs, unmodified, both ends on sockshim | path |\n|---|---|---|---|\n";

/// What a test has seen of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    program: String,
    version: String,
    what: String,
    path: String,
}

/// Compares what was seen with the program's row, or puts it there. The version may be another one: it says what
/// the row was seen with.
#[track_caller]
pub(crate) fn record(program: &str, version: &mut Command, what: &str, path: String) {
    static README: Mutex<()> = Mutex::new(());
    let _alone = README.lock();
    let seen = Row { program: program.into(), version: number_in(version), what: what.into(), path };
    let mut rows = rows();
    if is_blessing() {
        rows.retain(|row| row.program != program);
        rows.push(seen);
        rows.sort_by_key(|row| row.program.to_lowercase());
        let table: String = rows
            .iter()
            .map(|row| format!("| {} | {} | {} | {} |\n", row.program, row.version, row.what, row.path))
            .collect();
        let (before, _, after) = parts();
        fs::write(readme(), format!("{before}{BEGIN}{HEAD}{table}{END}{after}")).unwrap();
        return;
    }
    let row = rows.into_iter().find(|row| row.program == program);
    let row = row.map(|row| Row { version: seen.version.clone(), ..row });
    // Of several reasons for the host path, the moment of the look decides which one is seen.
    let seen_on_host = seen.path.starts_with("host: ");
    let row = row.map(|row| match row.path.starts_with("host: ") && seen_on_host {
        true => Row { path: seen.path.clone(), ..row },
        false => row,
    });
    assert_eq!(row, Some(seen), "SOCKSHIM_BLESS=1 writes README.md anew");
}

/// The path of the connections to `port`, seen while `client` runs: `pipe` as soon as both ends of one are on a pipe,
/// otherwise why the server's end stays with the kernel.
#[track_caller]
pub(crate) fn path(scratch: &Scratch, client: &mut Program, port: u16) -> String {
    let mut looks = 0;
    client.until("shows the path of its connection", |client| {
        // However slow the look is, the client does not end meanwhile.
        client.signal(libc::SIGSTOP);
        let connections = scratch.connections();
        client.signal(libc::SIGCONT);
        let port_of = |connection: &serde_json::Value, end: &str| {
            let (_, port) = connection[end].as_str()?.rsplit_once(':')?;
            port.parse::<u16>().ok()
        };
        let servers = connections.iter().filter(|connection| port_of(connection, "local") == Some(port));
        let mut reason = None;
        for server in servers {
            let state = server["state"].as_str().unwrap();
            let other = connections.iter().find(|client| {
                port_of(client, "local") == port_of(server, "peer") && port_of(client, "peer") == Some(port)
            });
            if state == "pipe" && other.is_some_and(|client| client["state"] == "pipe") {
                return Some("pipe".to_owned());
            }
            if state == "host" || state == "pinned" {
                reason = Some(format!("host: {}", server["reason_text"].as_str().unwrap()));
            }
        }
        // Another connection may still be on its way to a pipe.
        looks += u32::from(reason.is_some());
        reason.filter(|_| looks > 5)
    })
}

#[test]
fn the_table_names_every_program() {
    if is_blessing() {
        return;
    }
    let rows = rows();
    let programs: Vec<&str> = rows.iter().map(|row| row.program.as_str()).collect();
    assert_eq!(programs, PROGRAMS);
}

fn is_blessing() -> bool {
    std::env::var_os("SOCKSHIM_BLESS").is_some_and(|value| value == "1")
}

/// The first thing that looks like a version in what a program says of itself.
fn number_in(version: &mut Command) -> String {
    let output = version.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    let number = |word: &str| {
        let word = word.trim_start_matches(|letter: char| !letter.is_ascii_digit());
        let end = word.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(word.len());
        Some(word[..end].trim_end_matches('.').to_owned()).filter(|word| word.contains('.'))
    };
    words.filter_map(number).next().unwrap_or_else(|| panic!("no version in: {text}"))
}

fn rows() -> Vec<Row> {
    let (_, table, _) = parts();
    let rows = table.lines().skip(HEAD.lines().count()).map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        let mut cell = || cells.next().unwrap_or_else(|| panic!("a cell is missing in: {line}"));
        Row { program: cell(), version: cell(), what: cell(), path: cell() }
    });
    rows.collect()
}

/// README.md before the table, the table, and after it.
fn parts() -> (String, String, String) {
    let text = fs::read_to_string(readme()).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the table's first marker");
    let (table, after) = rest.split_once(END).expect("the table's last marker");
    (before.into(), table.into(), after.into())
}

fn readme() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}
