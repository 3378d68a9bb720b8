//! What a connection that has been used and is idle now costs in memory of the two processes; words: how many there
//! are, and which part is told: `private` pages and page `tables` of both ends, `shared` pages once, or `all` of these.
//! The figure is bytes. What the kernel's socket costs is the same for all backends, and not in it.

use crate::job::Job;
use crate::link::{Link as _, Socket};
use crate::net;
use std::fs;

/// More than the calls after which a connection moves onto a pipe.
const TRIPS: usize = 70;

pub(super) fn work(job: &Job) {
    let connections = job.number(1);
    net::raise_descriptor_limit();
    let mut sockets = vec![];
    let mut open: Box<dyn FnMut() -> Socket> = if job.is_server() {
        let listener = job.listen();
        Box::new(move || Socket(net::accept(listener)))
    } else {
        Box::new(|| Socket(job.connect()))
    };
    // The first brings what there is only once.
    use_it(job, open());
    let before = footprint(job);
    for _ in 0..connections {
        let socket = open();
        use_it(job, socket);
        sockets.push(socket);
    }
    let each = footprint(job).saturating_sub(before) / connections as u64;
    job.serve_timed(sockets[0].0, |count| each * count);
}

fn use_it(job: &Job, mut socket: Socket) {
    let mut message = [b'x'; 64];
    for _ in 0..TRIPS {
        if job.is_server() {
            socket.read_all(&mut message);
            socket.write_all(&message);
        } else {
            socket.write_all(&message);
            socket.read_all(&mut message);
        }
    }
}

/// Bytes of this process. What both ends map is counted at the client.
fn footprint(job: &Job) -> u64 {
    let parts: &[fn(&Job) -> u64] = match job.word(2) {
        "private" => &[private],
        "tables" => &[tables],
        "shared" => &[shared],
        _ => &[private, tables, shared],
    };
    parts.iter().map(|part| part(job)).sum()
}

fn private(_: &Job) -> u64 {
    let sums = read("/proc/self/smaps_rollup");
    kilobytes(&sums, "Pss_Anon") + kilobytes(&sums, "Pss_File")
}

fn tables(_: &Job) -> u64 {
    kilobytes(&read("/proc/self/status"), "VmPTE")
}

fn shared(job: &Job) -> u64 {
    let meeting_place = std::env::var("SOCKSHIM_DIR").unwrap_or_default();
    let maps = read("/proc/self/maps");
    maps.lines().filter_map(|line| resident(line, &meeting_place, job.is_server())).sum()
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A line of proc(5), in bytes.
fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or_else(|| panic!("the kernel does not tell {name}")) * 1024
}

/// Bytes in memory of a shared mapping, whether this process has touched them or not.
fn resident(line: &str, meeting_place: &str, is_server: bool) -> Option<u64> {
    let mut words = line.split_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let shared = words.next()?.ends_with('s');
    let both_map_it = !meeting_place.is_empty() && line.contains(meeting_place);
    if !shared || both_map_it && is_server {
        return None;
    }
    let [from, to] = [from, to].map(|address| usize::from_str_radix(address, 16).ok());
    let (from, length) = (from?, to? - from?);
    let mut pages = vec![0_u8; length.div_ceil(PAGE)];
    // SAFETY: a byte for each page; the mapping is only asked about.
    if unsafe { libc::mincore(from as *mut libc::c_void, length, pages.as_mut_ptr()) } < 0 {
        return None;
    }
    Some((pages.iter().filter(|&&page| page & 1 == 1).count() * PAGE) as u64)
}

const PAGE: usize = 4096;
