//! What poll, select and epoll say of a socket in every state, compared with a socket that the library does not
//! know and that went the same way.

use std::time::{Duration, Instant};

use crate::harness::{Case, case};
use crate::sys::raw::{BOTH, Way, words};
use crate::sys::{Address, Answer};

pub(crate) const CASES: &[Case] = &[
    case("states_of_a_connection", || {
        let mut failed = 0;
        for steps in CONNECTED {
            for before in [0, 10] {
                if std::panic::catch_unwind(|| compare(steps, before)).is_err() {
                    failed += 1;
                }
            }
        }
        assert_eq!(failed, 0);
    }),
    case("states_without_a_connection", || {
        let states: [(&str, Maker); 6] = [
            ("fresh", |way| way.socket(libc::AF_INET)),
            ("bound", |way| {
                let fd = way.socket(libc::AF_INET6);
                way.bind(fd, &Address::loopback(libc::AF_INET6, 0)).expect("bind");
                fd
            }),
            ("listening", |way| way.listener(libc::AF_INET).0),
            ("listening with one in the queue", |way| {
                let (fd, port) = way.listener(libc::AF_INET);
                let client = way.socket(libc::AF_INET);
                way.connect(client, &Address::loopback(libc::AF_INET, port)).expect("connect");
                fd
            }),
            ("refused", |way| {
                let (listener, port) = way.listener(libc::AF_INET);
                way.close(listener);
                let fd = way.socket(libc::AF_INET);
                way.fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK as usize).expect("O_NONBLOCK");
                let _ = way.connect(fd, &Address::loopback(libc::AF_INET, port));
                fd
            }),
            ("connecting", |way| {
                let (listener, port) = way.listener(libc::AF_INET);
                way.call(libc::SYS_listen, words([listener as usize, 0])).expect("listen");
                let mut last = -1;
                // The queue of a listener that nobody asks is full after one or two.
                for _ in 0..4 {
                    last = way.socket(libc::AF_INET);
                    way.fcntl(last, libc::F_SETFL, libc::O_NONBLOCK as usize).expect("O_NONBLOCK");
                    let _ = way.connect(last, &Address::loopback(libc::AF_INET, port));
                }
                last
            }),
        ];
        for (name, state) in states {
            let [library, past] = BOTH.map(|way| (way, state(way)));
            settle(name, &|| look(library.0, library.1), &|| look(past.0, past.1));
            for (way, fd) in [library, past] {
                way.close(fd);
            }
        }
    }),
];

/// Makes a socket in some state.
type Maker = fn(Way) -> i32;

/// One thing that happens to a connection: A is the peer, B the end that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Write,
    /// More than a ring or a receive buffer takes at once.
    WriteMuch,
    Urgent,
    Inline,
    Read,
    ReadAll,
    ReadUrgent,
    Fill,
    /// The peer reads all that was filled in.
    Drain,
    ShutPeer,
    ShutOwn,
    ShutOwnReading,
    ShutOwnBoth,
    ClosePeer,
    ResetPeer,
    LowWater,
    Error,
}

use Step::*;

/// After each step of each line the two are compared.
const CONNECTED: &[&[Step]] = &[
    &[Write, Read, Write, Write, ReadAll],
    &[WriteMuch, Read, ReadAll, ShutPeer],
    &[Write, ShutPeer, Read, ReadAll, ShutOwn],
    &[ShutPeer, ShutOwn, ReadAll],
    &[ShutOwn, Write, ShutPeer, ReadAll],
    &[Write, ClosePeer, ReadAll, ShutOwn],
    &[ClosePeer, ReadAll],
    &[ShutOwnReading, Write, Read, ReadAll, ShutPeer],
    &[Write, ShutOwnReading, ReadAll, Write],
    &[ShutOwnBoth, Write, ReadAll],
    &[ResetPeer, Error, Error, ReadAll],
    &[ResetPeer, ReadAll, ReadAll],
    &[Write, ResetPeer, Error, ReadAll, ReadAll],
    &[ShutOwn, ResetPeer, ReadAll],
    &[ShutPeer, ShutOwn, ClosePeer, ReadAll],
    &[Fill, Drain, Write, ReadAll],
    &[Fill, ShutOwn, Drain],
    &[Fill, ResetPeer, Error],
    &[Fill, ClosePeer, ReadAll],
    &[Urgent, ReadUrgent, Write, ReadAll],
    &[Write, Urgent, Write, Read, ReadUrgent, ReadAll],
    &[Inline, Write, Urgent, Write, Read, ReadAll],
    &[Write, Urgent, ShutPeer, ReadAll],
    &[LowWater, Write, WriteMuch, ReadAll],
    &[LowWater, Write, ShutPeer, ReadAll],
];

struct Connection {
    way: Way,
    a: i32,
    b: i32,
    /// Sets that have watched B from the start: level, edge, and edge for nothing but ends.
    sets: [i32; 3],
    a_is_closed: bool,
    last: Option<Answer>,
    out: usize,
}

const ALL: i16 = libc::POLLIN
    | libc::POLLPRI
    | libc::POLLOUT
    | libc::POLLRDHUP
    | libc::POLLRDNORM
    | libc::POLLRDBAND
    | libc::POLLWRNORM
    | libc::POLLWRBAND;

impl Connection {
    fn new(way: Way, before: usize) -> Self {
        let (a, b) = way.pair(libc::AF_INET);
        for _ in 0..before {
            assert_eq!(way.send(a, &[b'x'; 100], 0), Ok(100));
            let mut done = 0;
            while done < 100 {
                done += way.recv(b, &mut [0; 100], 0).expect("recv");
            }
            assert_eq!(way.send(b, b"y", 0), Ok(1));
            assert_eq!(way.recv(a, &mut [0; 100], 0), Ok(1));
        }
        let sets = [0, libc::EPOLLET, libc::EPOLLET].map(|flags| {
            let set = way.call(libc::SYS_epoll_create1, words([0])).expect("epoll") as i32;
            let asked =
                if flags == 0 { ALL as i32 } else { libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLOUT };
            let mut event = libc::epoll_event { events: (asked | flags) as u32, u64: u64::MAX };
            let at = [set as usize, libc::EPOLL_CTL_ADD as usize, b as usize, (&raw mut event).addr()];
            way.call(libc::SYS_epoll_ctl, words(at)).expect("EPOLL_CTL_ADD");
            set
        });
        let connection = Self { way, a, b, sets, a_is_closed: false, last: None, out: 0 };
        // The edge of the beginning.
        connection.edges();
        connection
    }

    fn step(&mut self, step: Step) {
        let (way, a, b) = (self.way, self.a, self.b);
        let quiet = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let option = |fd, level, name, value: &[u8]| way.set(fd, level, name, value).map(|_| 0);
        let one = 1_i32.to_ne_bytes();
        self.last = Some(match step {
            Write => way.send(a, b"twelve bytes", quiet),
            WriteMuch => way.send(a, &[b'm'; 60_000], quiet),
            Urgent => way.send(a, b"!", quiet | libc::MSG_OOB),
            Inline => option(b, libc::SOL_SOCKET, libc::SO_OOBINLINE, &one),
            Read => way.recv(b, &mut [0; 12], quiet),
            ReadAll => {
                let (mut total, mut buffer) = (0, vec![0; 100_000]);
                loop {
                    match way.recv(b, &mut buffer, quiet) {
                        Ok(count @ 1..) => total += count,
                        Ok(_) => break Ok(total),
                        // The end of what is there, or an error.
                        Err(error) if total == 0 => break Err(error),
                        Err(_) => break Ok(total),
                    }
                }
            }
            ReadUrgent => way.recv(b, &mut [0; 12], quiet | libc::MSG_OOB),
            Fill => {
                // A pipe takes more than the kernel (docs/compatibility.md): the count is not compared.
                let deadline = Instant::now() + Duration::from_millis(100);
                while Instant::now() < deadline {
                    while let Ok(count) = way.send(b, &[b'f'; 10_000], quiet) {
                        self.out += count;
                    }
                }
                Ok(0)
            }
            Drain => {
                let mut buffer = vec![0; 100_000];
                while self.out > 0 {
                    self.out -= way.recv(a, &mut buffer, 0).expect("recv");
                }
                Ok(0)
            }
            ShutPeer => way.shutdown(a, libc::SHUT_WR),
            ShutOwn => way.shutdown(b, libc::SHUT_WR),
            ShutOwnReading => way.shutdown(b, libc::SHUT_RD),
            ShutOwnBoth => way.shutdown(b, libc::SHUT_RDWR),
            ClosePeer | ResetPeer => {
                if matches!(step, ResetPeer) {
                    let linger = [one, 0_i32.to_ne_bytes()].concat();
                    way.set(a, libc::SOL_SOCKET, libc::SO_LINGER, &linger).expect("SO_LINGER");
                }
                way.close(a);
                self.a_is_closed = true;
                Ok(0)
            }
            LowWater => option(b, libc::SOL_SOCKET, libc::SO_RCVLOWAT, &100_i32.to_ne_bytes()),
            Error => way.get(b, libc::SOL_SOCKET, libc::SO_ERROR, 4).map(|value| value[0] as usize),
        });
    }

    fn events(&self, set: i32) -> Option<u32> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let at = [set as usize, (&raw mut event).addr(), 1, 0];
        let count = self.way.call(libc::SYS_epoll_wait, words(at)).expect("epoll_wait");
        if count == 1 {
            assert_eq!({ event.u64 }, u64::MAX);
        }
        (count == 1).then_some(event.events)
    }

    /// What the edge-triggered sets have not told yet.
    fn edges(&self) -> [u32; 2] {
        [self.sets[1], self.sets[2]].map(|set| {
            let mut told = 0;
            // A set that is only asked without waiting takes some looks to ask the kernel in turn.
            for _ in 0..200 {
                told |= self.events(set).unwrap_or(0);
            }
            told
        })
    }

    /// Everything that can be asked without changing anything.
    fn look(&self) -> Vec<u32> {
        let mut seen = look(self.way, self.b);
        seen.push(self.events(self.sets[0]).unwrap_or(0));
        seen
    }

    fn end(self) {
        for set in self.sets {
            self.way.close(set);
        }
        self.way.close(self.b);
        if !self.a_is_closed {
            self.way.close(self.a);
        }
    }
}

/// poll with all events and with none, each set of select, and a new epoll set.
fn look(way: Way, fd: i32) -> Vec<u32> {
    let (input, output, end) = (libc::POLLIN, libc::POLLOUT, libc::POLLRDHUP);
    let mut seen: Vec<u32> = [ALL, input, output, end, input | end, output | end, 0]
        .map(|events| way.poll(fd, events, 0) as u16 as u32)
        .to_vec();
    for place in 0..3 {
        let mut bits = [0_u64; 16];
        bits[fd as usize / 64] |= 1 << (fd % 64);
        let mut time = [0_u64; 2];
        let mut at = [fd as usize + 1, 0, 0, 0, time.as_mut_ptr().addr(), 0];
        at[place + 1] = bits.as_mut_ptr().addr();
        let count = way.call(libc::SYS_select, at).expect("select");
        assert_eq!(count, (bits[fd as usize / 64] != 0) as usize);
        seen.push(count as u32);
    }
    seen
}

/// Waits a while for the two to agree: what the other end did may still be on its way.
#[track_caller]
fn settle(name: &str, library: &dyn Fn() -> Vec<u32>, past: &dyn Fn() -> Vec<u32>) {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let (one, other) = (library(), past());
        if one == other {
            return;
        }
        if Instant::now() > deadline {
            let show = |masks: &[u32]| masks.iter().map(|mask| format!("{mask:#x}")).collect::<Vec<_>>();
            panic!("{name}: {:?}, the kernel says {:?}", show(&one), show(&other));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn compare(steps: &[Step], before: usize) {
    let [mut library, mut past] = BOTH.map(|way| Connection::new(way, before));
    for (index, step) in steps.iter().enumerate() {
        library.step(*step);
        past.step(*step);
        let name = format!("{:?} after {before}", &steps[..=index]);
        settle(&name, &|| library.look(), &|| past.look());
        assert_eq!(library.last, past.last, "{name}");
        // An edge may be told twice; it must not be lost. Of an end that this end's own shutdown has told already
        // there is none.
        let told = steps[..index].contains(&ShutOwnReading);
        // The kernel repeats that there is room whenever it looks.
        let room = (libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND) as u32;
        let repeated = if *step == Drain { 0 } else { room };
        for (one, other) in library.edges().into_iter().zip(past.edges()) {
            assert!(
                told || other & !one & !repeated == 0,
                "{name}: edges {one:#x}, the kernel tells {other:#x}"
            );
        }
    }
    library.end();
    past.end();
}
