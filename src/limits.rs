//! The table of limits in docs/compatibility.md has the numbers that the code has.

use crate::abi::IOV_MAX;
use crate::abi::poll::MOST_DESCRIPTORS;
use crate::abi::splice::MOST_SPLICED;
use crate::pipe::connection::segment::SHARE;
use crate::pipe::waiting::room::MOST_AT_ONCE;
use crate::readiness::epoll::reported;
use crate::state::descriptor_table::CAP;
use crate::state::family::MEMBERS;
use crate::state::socket_table::{Entry, REGISTRATIONS, SETS, SLEEPERS, SOCKETS};
use crate::state::table_file::INSTANCES;
use sockshim_ring::layout::MAX_CAPACITY;
use sockshim_ring::publish_time::KEPT;

#[test]
fn the_documented_limits_are_those_of_the_code() {
    let limits = [
        ("highest descriptor number", CAP - 1),
        ("TCP sockets of a family", SOCKETS),
        ("epoll sets of a family", SETS),
        ("registrations with epoll sets of a family", REGISTRATIONS),
        ("epoll sets that one connection is in", length(|entry| &entry.registrations)),
        ("processes of a family", MEMBERS),
        ("bytes in the ring of one direction", MAX_CAPACITY as usize),
        ("bytes that one non-blocking write takes", MOST_AT_ONCE),
        ("messages of one `recvmmsg` or `sendmmsg`", IOV_MAX),
        ("bytes of one `splice` from a connection", MOST_SPLICED),
        // The last place counts the others.
        ("threads that sleep on one connection", SLEEPERS - 1),
        ("descriptors of one `poll`", MOST_DESCRIPTORS as usize),
        ("pipes whose order one `epoll_wait` keeps", reported::MOST),
        ("unread writes to a connection that count for this order", KEPT),
        ("part of a limited address space", SHARE as usize),
        ("socket tables with a file", INSTANCES as usize),
    ];
    let documented = table(include_str!("../docs/compatibility.md"));
    assert_eq!(documented.len(), limits.len(), "a limit is missing here or there");
    for ((name, number), (limit, value)) in documented.into_iter().zip(limits) {
        assert!(name.starts_with(limit), "{name:?} stands where {limit:?} should");
        assert_eq!(number, value, "{name}");
    }
}

/// Names and numbers of the table of limits.
fn table(page: &str) -> Vec<(&str, usize)> {
    let (_, rest) = page.split_once("| limit | how many | beyond it |\n|---|---|---|\n").expect("the table");
    rest.lines().take_while(|line| line.starts_with('|')).map(row).collect()
}

/// `| name | 65,536 at a time | ...`; a part is `1/16`.
fn row(line: &str) -> (&str, usize) {
    let [_, name, number, beyond, _] = line.split('|').collect::<Vec<_>>()[..] else {
        panic!("not a row of three: {line}")
    };
    assert!(!beyond.trim().is_empty(), "{line} does not say what happens then");
    let number = number.trim().trim_start_matches("1/");
    let end = number.find(|character: char| !character.is_ascii_digit() && character != ',');
    let digits = number[..end.unwrap_or(number.len())].replace(',', "");
    (name.trim(), digits.parse().expect(line))
}

fn length<T, const N: usize>(_: impl Fn(&Entry) -> &[T; N]) -> usize {
    N
}
