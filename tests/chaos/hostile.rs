//! Processes of the same user that write where they should not.
//!
//! # Safety
//! They write into mappings that were just found in /proc/self/maps, or just made, and only as atomic words; what
//! that does to sockshim in this process is this process's own risk: it is killed in the end.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use std::{env, ptr, thread};

use sockshim_ring::layout::{HEADER_SIZE, direction_offset};

use crate::roles::setting;
use crate::traffic::{Random, Request};

/// Talks to the server and meanwhile fuzzes the header and the indices of its own connections' segments.
pub(crate) fn scribble_on_own_segments() {
    let port = setting("CHAOS_PORT") as u16;
    let seed = setting("CHAOS_SEED");
    thread::spawn(move || {
        let mut random = Random::new(seed);
        loop {
            for start in segments() {
                for _ in 0..random.below(200) {
                    // SAFETY: see the module; a segment's range is never given back to the system.
                    unsafe { spoil(start, place(&mut random), &mut random) };
                }
            }
            thread::sleep(Duration::from_micros(random.below(300)));
        }
    });
    let mut random = Random::new(!seed);
    loop {
        thread::scope(|scope| {
            for _ in 0..3 {
                let mut own = Random::new(random.next());
                scope.spawn(move || visit(port, &mut own));
            }
        });
    }
}

/// A conversation that need not go well.
fn visit(port: u16, random: &mut Random) -> Option<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let timeout = Some(Duration::from_millis(20));
    stream.set_read_timeout(timeout).ok()?;
    stream.set_write_timeout(timeout).ok()?;
    let request = Request { seed: random.next() | 1 << 63, up: 1 << 24, down: 1 << 24 };
    stream.write_all(&request.encode()).ok()?;
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..random.below(100) {
        let size = random.size(16);
        let _ = if random.below(2) == 0 {
            stream.read(&mut buffer[..size])
        } else {
            stream.write(&buffer[..size])
        };
    }
    Some(())
}

/// Where the fronts of segments are mapped in this process.
fn segments() -> Vec<usize> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let ours = maps.lines().filter(|line| line.contains("/pipe") && line.contains(" 00000000 "));
    ours.filter_map(|line| usize::from_str_radix(line.split_once('-')?.0, 16).ok()).collect()
}

/// A word of the header page; mostly one that means something.
fn place(random: &mut Random) -> usize {
    const WORDS: [usize; 22] = [
        0, 4, 8, 12, 128, 132, 136, 256, 384, 392, 396, 400, 404, 408, 412, 416, 512, 516, 520, 528, 536, 540,
    ];
    match random.below(4) {
        0 => random.below(HEADER_SIZE as u64 / 4) as usize * 4,
        1 => random.below(12) as usize * 4,
        _ => {
            let word = WORDS[random.below(WORDS.len() as u64) as usize];
            direction_offset(random.below(2) as usize) + word
        }
    }
}

/// Changes the word at `offset` of a mapping.
unsafe fn spoil(start: usize, offset: usize, random: &mut Random) {
    let word = ptr::with_exposed_provenance::<AtomicU32>(start + offset);
    // SAFETY: the caller's: a word within the mapping.
    let word = unsafe { &*word };
    match random.below(5) {
        0 => word.store(random.next() as u32, Ordering::Relaxed),
        1 => word.store(random.below(4) as u32, Ordering::Relaxed),
        2 => drop(word.fetch_add(random.size(16) as u32, Ordering::Relaxed)),
        3 => word.store(u32::MAX << random.below(32), Ordering::Relaxed),
        _ => drop(word.fetch_xor(1 << random.below(32), Ordering::Relaxed)),
    }
}

/// Fuzzes the table of another process.
pub(crate) fn scribble_on_table() {
    let path = env::var("CHAOS_TABLE").expect("CHAOS_TABLE");
    let file = File::options().read(true).write(true).open(path).expect("the table");
    let length = file.metadata().expect("its size").len() as usize;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let (shared, fd) = (libc::MAP_SHARED, file.as_raw_fd());
    // SAFETY: a new mapping of a whole file.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, protection, shared, fd, 0) };
    assert_ne!(start, libc::MAP_FAILED, "mmap");
    let start = start.expose_provenance();
    let mut random = Random::new(setting("CHAOS_SEED"));
    println!("mapped");
    loop {
        // The head, and the first of each kind: those that are in use.
        let offset = match random.below(3) {
            0 => random.below(4096),
            1 => random.below(64 * 1024),
            _ => random.below(length as u64 & !7),
        } as usize;
        // SAFETY: within the mapping, which stays.
        unsafe { spoil(start, offset & !3, &mut random) };
        if random.below(50) == 0 {
            let word = ptr::with_exposed_provenance::<AtomicU64>(start + (offset & !7));
            // SAFETY: as before.
            unsafe { &*word }.store(random.next(), Ordering::Relaxed);
            thread::sleep(Duration::from_micros(random.below(500)));
        }
    }
}
