//! A server whose processes hand a conversation on in the middle of it, again and again: in a message to a process with or
//! without sockshim, to a child that goes on while its parent ends, or the other way round, and to a new program.
//!
//! A carrier does a part of the conversation, and the next one goes on where it stopped, so that a byte that is lost,
//! doubled or left behind is seen at the next look.
//!
//! What docs/compatibility.md (*Handing a connection on*) excepts does not happen here: the client ends its direction when
//! all has been read, and a process that executes a program is the only one that has the connection, or is so in a moment.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;
use std::{env, mem, process, thread};

use crate::roles::{judge, listen, setting};
use crate::traffic::{Broken, Random, Request, end_of};

/// How far a conversation has come, as it is handed on.
#[derive(Clone, Copy)]
struct Course {
    request: Request,
    up: u64,
    down: u64,
    seed: u64,
    /// How often it has gone to another program. What is left unread once more only a program with sockshim finds.
    moves: u64,
}

impl Course {
    const LENGTH: usize = Request::LENGTH + 32;

    fn encode(self) -> Vec<u8> {
        let words = [self.up, self.down, self.seed, self.moves];
        [self.request.encode(), words.iter().flat_map(|word| word.to_le_bytes()).collect()].concat()
    }

    fn decode(bytes: &[u8]) -> Self {
        let word = |index: usize| {
            let at = Request::LENGTH + 8 * index;
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
        };
        Self { request: Request::decode(bytes), up: word(0), down: word(1), seed: word(2), moves: word(3) }
    }

    fn is_over(self) -> bool {
        self.up == self.request.up && self.down == self.request.down
    }
}

/// What becomes of a conversation after a part of it.
enum Next {
    Here,
    /// Another process has it, and this one for as long as it likes.
    Shared,
    /// A new program gets it, and what is unread, once this process is gone.
    Elsewhere,
}

/// Accepts, and gives each conversation to a child. Two helpers take over what is sent to them, the second of which has no
/// sockshim.
pub(crate) fn serve() {
    ignore_children();
    let helpers = start_helpers();
    let listener = listen();
    loop {
        if let Ok((stream, _)) = listener.accept() {
            in_a_child(|| {
                let mut head = [0; Request::LENGTH];
                if (&stream).read_exact(&mut head).is_ok() {
                    begin(stream, Request::decode(&head), helpers);
                }
            });
        }
    }
}

/// The client may be in a read that it began before the connection was on a pipe, which nobody can wake but with data.
fn begin(mut stream: TcpStream, request: Request, helpers: [i32; 2]) {
    let [_, mut down] = request.flows();
    if stream.write_all(&down.take(1)).is_ok() {
        carry(stream, Course { request, up: 0, down: 1, seed: request.seed, moves: 0 }, helpers);
    }
}

/// The parent goes on at once.
fn in_a_child(work: impl FnOnce()) {
    // SAFETY: the processes here have one thread each.
    if unsafe { libc::fork() } == 0 {
        println!("child {}", process::id());
        work();
        process::exit(0);
    }
}

fn ignore_children() {
    // SAFETY: no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Two processes that carry on what comes over a socket, one with sockshim and one without. All carriers inherit their
/// ends of these sockets.
#[expect(clippy::zombie_processes, reason = "SIGCHLD is ignored")]
fn start_helpers() -> [i32; 2] {
    let pairs = [(); 2].map(|()| {
        let mut ends = [0; 2];
        // SAFETY: there is room for both.
        assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, ends.as_mut_ptr()) }, 0);
        ends
    });
    let helpers = pairs.map(|[own, _]| own);
    for ([_, over], preloaded) in pairs.into_iter().zip([true, false]) {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.env("CHAOS_ROLE", "helper").env("CHAOS_OVER", over.to_string());
        command.env("CHAOS_HELPERS", listed(helpers));
        if !preloaded {
            command.env_remove("LD_PRELOAD");
        }
        command.spawn().expect("a helper");
    }
    for [_, over] in pairs {
        // SAFETY: nobody else closes it.
        unsafe { libc::close(over) };
    }
    helpers
}

/// Carries on, each conversation in a child, what is sent to it.
pub(crate) fn help() {
    ignore_children();
    let over = setting("CHAOS_OVER") as i32;
    while let Some((stream, course)) = receive(over) {
        in_a_child(|| carry(stream, course, helpers()));
    }
}

fn listed(helpers: [i32; 2]) -> String {
    helpers.map(|helper| helper.to_string()).join(" ")
}

fn helpers() -> [i32; 2] {
    let text = env::var("CHAOS_HELPERS").unwrap_or_default();
    let numbers: Vec<i32> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().expect("two helpers")
}

/// A new program that goes on with what the one before it was doing.
pub(crate) fn be_carrier() {
    ignore_children();
    let text = env::var("CHAOS_COURSE").expect("a course");
    let bytes: Vec<u8> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
    // SAFETY: the descriptor was left for this program.
    let stream = unsafe { TcpStream::from_raw_fd(setting("CHAOS_STREAM") as i32) };
    carry(stream, Course::decode(&bytes), helpers());
}

/// Until it is over, or somebody else has it.
fn carry(mut stream: TcpStream, mut course: Course, helpers: [i32; 2]) {
    loop {
        let result = go_on(&mut stream, &mut course)
            .and_then(|()| if course.is_over() { end_of(&stream).map(|()| true) } else { Ok(false) });
        let over = !matches!(result, Ok(false));
        if let Err(Broken::Lost(error)) = &result
            && setting("CHAOS_TOLERANT") == 0
        {
            eprintln!("LOST after {} and {} bytes of {:?}: {error}", course.up, course.down, course.request);
        }
        judge(result.map(drop), course.request);
        if over {
            return;
        }
        match hand_on(&stream, course, helpers) {
            Next::Here => {}
            Next::Elsewhere => return,
            Next::Shared => {
                // Both have it for a while, and only one uses it.
                thread::sleep(Duration::from_micros(Random::new(course.seed).below(3000)));
                return;
            }
        }
    }
}

/// A part of the conversation, in one or both directions.
fn go_on(stream: &mut TcpStream, course: &mut Course) -> Result<(), Broken> {
    let mut random = Random::new(course.seed);
    let [mut up, mut down] = course.request.flows();
    up.skip(course.up);
    down.skip(course.down);
    for _ in 0..1 + random.below(4) {
        let most = (random.size(16) as u64).min(course.request.up - course.up);
        if most > 0 {
            let mut buffer = vec![0; most as usize];
            match stream.read(&mut buffer)? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => {
                    up.check(&buffer[..count]).map_err(Broken::Wrong)?;
                    course.up += count as u64;
                }
            }
        }
        // The last byte goes when all has come: before that the client must not end its direction, in which it may be asked
        // for bytes again.
        let held_back = u64::from(course.up < course.request.up);
        let piece = (random.size(16) as u64).min(course.request.down - course.down - held_back);
        stream.write_all(&down.take(piece as usize))?;
        course.down += piece;
    }
    course.seed = random.next();
    Ok(())
}

fn hand_on(stream: &TcpStream, course: Course, helpers: [i32; 2]) -> Next {
    let mut random = Random::new(!course.seed);
    match random.below(8) {
        0 => send(helpers[0], stream, course),
        1 if course.moves == 0 => send(helpers[1], stream, course),
        // SAFETY: the processes here have one thread each.
        way @ 2..=5 => match unsafe { libc::fork() } {
            -1 => Next::Here,
            0 => {
                println!("child {}", process::id());
                match way {
                    2 => Next::Shared,
                    3 => Next::Here,
                    way => execute(stream, course, helpers, way == 4),
                }
            }
            _ => match way {
                2 => Next::Here,
                3 => Next::Shared,
                _ => Next::Elsewhere,
            },
        },
        6 => execute(stream, course, helpers, random.below(2) == 0),
        _ => Next::Here,
    }
}

/// Becomes another program; one without an environment gets what was unread as well.
fn execute(stream: &TcpStream, mut course: Course, helpers: [i32; 2], keeps_environment: bool) -> Next {
    // SAFETY: a descriptor of this process, which the new program shall have.
    let copy = unsafe { libc::dup(stream.as_raw_fd()) };
    course.moves += 1;
    let text: Vec<String> = course.encode().iter().map(u8::to_string).collect();
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.env("CHAOS_ROLE", "carrier").env("CHAOS_STREAM", copy.to_string());
    command.env("CHAOS_COURSE", text.join(" ")).env("CHAOS_HELPERS", listed(helpers));
    if !keeps_environment {
        command.env_remove("LD_PRELOAD");
    }
    let error = command.exec();
    panic!("exec: {error}");
}

/// A message of a course and a descriptor: room for one, aligned.
type Control = [u64; 4];

fn message(bytes: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: null pointers and zero lengths are valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (bytes, 1);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>();
    message
}

fn send(over: i32, stream: &TcpStream, mut course: Course) -> Next {
    course.moves += 1;
    let mut bytes = course.encode();
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control::default();
    let mut message = message(&mut piece, &mut control);
    // SAFETY: the control buffer has room for one descriptor; what the message names lives across the call.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(stream.as_raw_fd());
        libc::sendmsg(over, &raw const message, libc::MSG_NOSIGNAL)
    };
    if sent > 0 { Next::Shared } else { Next::Here }
}

fn receive(over: i32) -> Option<(TcpStream, Course)> {
    let mut bytes = [0u8; Course::LENGTH];
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control::default();
    let mut message = message(&mut piece, &mut control);
    // SAFETY: what the message names lives across the call; a whole message has one descriptor.
    unsafe {
        if libc::recvmsg(over, &raw mut message, libc::MSG_CMSG_CLOEXEC) != Course::LENGTH as isize {
            return None;
        }
        let fd = libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&raw const message)).cast::<i32>().read_unaligned();
        Some((TcpStream::from_raw_fd(fd), Course::decode(&bytes)))
    }
}
