//! How fast Linux's TCP is over the simulator's link model, in real time: the reference for the bars of `tests/simulation`.
//!
//! ```sh
//! cargo build --release -p sockshim-tcpip --example linux_curve && sudo target/release/examples/linux_curve [cubic] [runs] [jitter]
//! ```
//!
//! Two threads have a network namespace with a TUN device each, and a TCP connection between them. What leaves one device
//! goes through a [`Link`] and into the other one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sockshim_tcpip::sim::{Frame, Link, LinkConfig, Loss, Outcome, Queue, Random};
use sockshim_tcpip::time::Instant;

const RATE: u64 = 200_000_000;
const DELAY: Duration = Duration::from_millis(10);
const TIME: Duration = Duration::from_secs(10);
const SERVER: &str = "10.9.0.2:5001";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let algorithm = arguments.next().unwrap_or_else(|| "cubic".into());
    let runs: u64 = arguments.next().map_or(4, |runs| runs.parse().expect("a number of runs"));
    let jitter = Duration::from_millis(arguments.next().map_or(0, |ms| ms.parse().expect("milliseconds")));
    // With jitter it is that alone that is asked for.
    let losses: &[f64] = if jitter.is_zero() { &[1e-4, 1e-3, 1e-2, 3e-2] } else { &[0.0] };
    for &loss in losses {
        let there = LinkConfig { loss: Loss::Random(loss), jitter, ..LinkConfig::default() };
        let runs: Vec<(f64, f64)> = (1..=runs).map(|seed| run(&algorithm, &there, seed)).collect();
        let mean = |which: fn(&(f64, f64)) -> f64| runs.iter().map(which).sum::<f64>() / runs.len() as f64;
        let rate = mean(|run| run.0);
        let deviation =
            (runs.iter().map(|run| (run.0 - rate).powi(2)).sum::<f64>() / runs.len() as f64).sqrt();
        println!(
            "loss {loss}: {rate:.1} Mbit/s (deviation {deviation:.1}), smallest round trip {:.1} ms",
            mean(|run| run.1)
        );
    }
}

/// Mbit/s of ten seconds, and the smallest round-trip time in milliseconds.
fn run(algorithm: &str, there: &LinkConfig, seed: u64) -> (f64, f64) {
    let (devices, device) = mpsc::channel();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (listening, ready) = mpsc::channel();
        let to_main = devices.clone();
        let server = scope.spawn(move || {
            to_main.send((1, namespace("10.9.0.2/24"))).expect("main waits");
            let listener = TcpListener::bind(SERVER).expect("the address is ours");
            listening.send(()).expect("the client waits");
            let (mut stream, _) = listener.accept().expect("the client comes");
            let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
            let end = std::time::Instant::now() + TIME;
            while std::time::Instant::now() < end {
                total += stream.read(&mut buffer).expect("the connection lives");
            }
            total as f64 * 8.0 / 1e6 / TIME.as_secs_f64()
        });
        let client = scope.spawn(move || {
            devices.send((0, namespace("10.9.0.1/24"))).expect("main waits");
            ready.recv().expect("the server listens");
            let mut stream = connect(algorithm);
            let data = vec![0; 1 << 18];
            let mut round_trip = f64::INFINITY;
            while stream.write_all(&data).is_ok() {
                round_trip = round_trip.min(smallest_round_trip(&stream));
            }
            round_trip
        });
        let mut pair: Vec<(usize, File)> = (0..2).map(|_| device.recv().expect("both begin")).collect();
        pair.sort_by_key(|&(side, _)| side);
        let pair = [&pair[0].1, &pair[1].1];
        let forwarder = scope.spawn({
            let done = &done;
            let pair = pair.map(|device| device.try_clone().expect("a descriptor"));
            move || forward(pair, there, seed, done)
        });
        let rate = server.join().expect("the server");
        // The server's socket is gone: its reset ends the client.
        let round_trip = client.join().expect("the client");
        done.store(true, Ordering::Relaxed);
        forwarder.join().expect("the link");
        (rate, round_trip)
    })
}

/// Carries packets between the devices until told to stop.
fn forward(devices: [File; 2], there: &LinkConfig, seed: u64, done: &AtomicBool) {
    let back = LinkConfig { rate: Some(RATE), delay: DELAY, ..LinkConfig::default() };
    let bytes = (RATE / 8) as usize * 2 * DELAY.as_millis() as usize / 1000;
    let queue = Queue { bytes, ..Queue::default() };
    let there = LinkConfig { queue, rate: back.rate, delay: back.delay, ..there.clone() };
    let mut links = [Link::new(there, Random::new(seed)), Link::new(back, Random::new(seed + 1000))];
    let begin = std::time::Instant::now();
    let now = || Instant::from_nanos(begin.elapsed().as_nanos() as u64);
    let mut waiting = BinaryHeap::new();
    let mut buffer = vec![0; 1 << 16];
    let mut number = 0_u64;
    while !done.load(Ordering::Relaxed) {
        for (side, link) in links.iter_mut().enumerate() {
            while let Ok(len) = (&devices[side]).read(&mut buffer) {
                link.enter(now(), Frame::new(buffer[..len].to_vec()), |outcome| {
                    if let Outcome::Arrives(at, frame) = outcome {
                        number += 1;
                        waiting.push(Reverse((at, number, side, frame.bytes)));
                    }
                });
            }
        }
        while waiting.peek().is_some_and(|Reverse((at, ..))| *at <= now()) {
            let Some(Reverse((_, _, side, packet))) = waiting.pop() else { break };
            let _ = (&devices[1 - side]).write(&packet);
        }
        let next = waiting.peek().map_or(Duration::from_millis(10), |Reverse((at, ..))| *at - now());
        wait(&devices, next);
    }
}

/// Until a device has a packet, or for that long.
fn wait(devices: &[File; 2], time: Duration) {
    let mut polled = devices.each_ref().map(|device| libc::pollfd {
        fd: device.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    let time = libc::timespec { tv_sec: 0, tv_nsec: time.as_nanos().min(10_000_000) as i64 };
    // SAFETY: ppoll(2) gets as many entries as there are, and a time that lives until it returns.
    unsafe { libc::ppoll(polled.as_mut_ptr(), 2, &time, std::ptr::null()) };
}

/// Moves the thread into a namespace of its own with a TUN device that has this address.
fn namespace(address: &str) -> File {
    // SAFETY: unshare(2) takes no memory. Only this thread gets the namespace.
    let own = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(own, 0, "needs root: {}", std::io::Error::last_os_error());
    let device = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .expect("a TUN device can be made");
    // SAFETY: all-zero is a request without name and flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    assert_eq!(made, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    for command in [
        format!("ip address add {address} dev tun0"),
        "ip link set tun0 up txqueuelen 10000".into(),
        "ip link set lo up".into(),
    ] {
        let mut words = command.split(' ');
        let status =
            Command::new(words.next().expect("a word")).args(words).status().expect("ip(8) is there");
        assert!(status.success(), "{command}");
    }
    device
}

fn connect(algorithm: &str) -> TcpStream {
    let stream = TcpStream::connect(SERVER).expect("the server listens");
    // SAFETY: setsockopt(2) reads as many bytes as the name has.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            algorithm.as_ptr().cast(),
            algorithm.len() as u32,
        )
    };
    assert_eq!(set, 0, "TCP_CONGESTION: {}", std::io::Error::last_os_error());
    stream
}

/// TCP_INFO's tcpi_min_rtt in milliseconds.
fn smallest_round_trip(stream: &TcpStream) -> f64 {
    const MIN_RTT: usize = 148;
    let mut info = [0_u8; 280];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: getsockopt(2) writes at most `len` bytes.
    unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    let micros = u32::from_ne_bytes(info[MIN_RTT..MIN_RTT + 4].try_into().expect("four bytes"));
    f64::from(micros) / 1000.0
}
