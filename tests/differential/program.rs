//! Random programs of socket calls.
//!
//! A step names its descriptors by number modulo what is there, so that every program means something, also
//! after steps have been taken out to make it smaller.

use libc::{
    EPOLLERR, EPOLLET, EPOLLEXCLUSIVE, EPOLLHUP, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLPRI, EPOLLRDHUP,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::call::{Polling, Reading, Waiting, Writing};

/// Connections to begin with, and what is done with them.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) connections: Vec<Link>,
    pub(crate) steps: Vec<Step>,
}

/// In which process the two ends of a connection are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) client: u8,
    pub(crate) server: u8,
    pub(crate) v6: bool,
}

/// Which thread makes the call, and on what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) socket: u8,
    pub(crate) thread: u8,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Connect(Link),
    Write(At, Writing, i32, usize),
    Read(At, Reading, i32, usize),
    /// Until EAGAIN, by the writer's side; no other call uses that direction before it is drained.
    Fill(At, usize),
    /// More than any buffer takes, by a thread that blocks in it.
    Flood(At),
    Drain(At),
    Splice(At, usize),
    SendFile(At, usize, bool),
    Shutdown(At, i32),
    Close(At),
    Dup(At, bool),
    DupOnto(At, u8, Option<i32>),
    Nonblock(At, bool, bool),
    SetOption(At, Setting),
    GetOption(At, i32, i32, usize),
    Unread(At),
    Names(At),
    Urgent(At),
    ReadUrgent(At),
    AtMark(At),
    Poll(At, Polling, Vec<(u8, i16)>, Patience),
    NewSet(u8),
    Control {
        set: u8,
        target: Target,
        operation: i32,
        events: i32,
    },
    Wait {
        set: u8,
        thread: u8,
        how: Waiting,
        patience: Patience,
    },
    PollSet(u8, u8),
    Fork(u8),
    Exec(u8),
    End {
        process: u8,
        killed: bool,
    },
    Pass(At),
    Signal {
        thread: u8,
        restart: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Socket(u8),
    Set(u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Setting {
    LingerZero,
    Linger,
    KeepAlive,
    ReceiveTimeout,
    LowWater(i32),
    SendBuffer,
    ReceiveBuffer,
    QuickAck,
    UserTimeout,
    Cork,
}

/// How long a wait waits: not at all, a few milliseconds, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    Little,
    Endless,
}

impl Patience {
    pub(crate) fn milliseconds(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Little => 5,
            Self::Endless => -1,
        }
    }
}

/// What a program may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    pub(crate) steps: usize,
    /// Otherwise all is done by one thread.
    pub(crate) threads: bool,
    /// Otherwise both ends are in one process.
    pub(crate) processes: bool,
}

pub(crate) fn programs(scope: Scope) -> impl Strategy<Value = Program> {
    let link = (0..2_u8, 0..2_u8, any::<bool>()).prop_map(move |(client, server, v6)| {
        let side = u8::from(scope.processes);
        Link { client: client * side, server: server * side, v6 }
    });
    (vec(link, 1..3), vec(step(scope), 1..scope.steps))
        .prop_map(|(connections, steps)| Program { connections, steps })
}

fn step(scope: Scope) -> impl Strategy<Value = Step> {
    let threads = if scope.threads { 3_u8 } else { 1 };
    let at = move || (any::<u8>(), 0..threads).prop_map(|(socket, thread)| At { socket, thread });
    let patience = || {
        let list = [Patience::None, Patience::None, Patience::None, Patience::Little, Patience::Endless];
        select(list[..if scope.threads { 5 } else { 4 }].to_vec())
    };
    prop_oneof![
        1 => (0..2_u8, 0..2_u8, any::<bool>()).prop_map(move |(client, server, v6)| {
            let side = u8::from(scope.processes);
            Step::Connect(Link { client: client * side, server: server * side, v6 })
        }),
        16 => (at(), writing(), write_flags(), length()).prop_map(|(a, b, c, d)| Step::Write(a, b, c, d)),
        16 => (at(), reading(), read_flags(), length()).prop_map(|(a, b, c, d)| Step::Read(a, b, c, d)),
        1 => (at(), 400..50_000_usize).prop_map(|(a, b)| Step::Fill(a, b)),
        1 => at().prop_map(Step::Flood),
        3 => at().prop_map(Step::Drain),
        1 => (at(), length()).prop_map(|(a, b)| Step::Splice(a, b)),
        1 => (at(), length(), any::<bool>()).prop_map(|(a, b, c)| Step::SendFile(a, b, c)),
        2 => (at(), 0..3_i32).prop_map(|(a, b)| Step::Shutdown(a, b)),
        2 => at().prop_map(Step::Close),
        2 => (at(), any::<bool>()).prop_map(|(a, b)| Step::Dup(a, b)),
        1 => (at(), any::<u8>(), select(vec![None, Some(0), Some(libc::O_CLOEXEC)]))
            .prop_map(|(a, b, c)| Step::DupOnto(a, b, c)),
        3 => (at(), any::<bool>(), any::<bool>()).prop_map(|(a, b, c)| Step::Nonblock(a, b, c)),
        2 => (at(), setting()).prop_map(|(a, b)| Step::SetOption(a, b)),
        3 => (at(), option()).prop_map(|(a, (b, c, d))| Step::GetOption(a, b, c, d)),
        3 => at().prop_map(Step::Unread),
        1 => at().prop_map(Step::Names),
        1 => at().prop_map(Step::Urgent),
        1 => at().prop_map(Step::ReadUrgent),
        1 => at().prop_map(Step::AtMark),
        8 => (at(), polling(), vec((any::<u8>(), poll_events()), 1..4), patience())
            .prop_map(|(a, b, c, d)| Step::Poll(a, b, c, d)),
        3 => any::<u8>().prop_map(Step::NewSet),
        12 => (any::<u8>(), target(), operation(), set_events())
            .prop_map(|(set, target, operation, events)| Step::Control { set, target, operation, events }),
        14 => (any::<u8>(), 0..threads, waiting(), patience())
            .prop_map(|(set, thread, how, patience)| Step::Wait { set, thread, how, patience }),
        2 => (any::<u8>(), 0..threads).prop_map(|(a, b)| Step::PollSet(a, b)),
        1 => any::<u8>().prop_map(Step::Fork),
        1 => any::<u8>().prop_map(Step::Exec),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(process, killed)| Step::End { process, killed }),
        1 => at().prop_map(Step::Pass),
        2 => (0..threads, any::<bool>())
            .prop_map(|(thread, restart)| Step::Signal { thread, restart }),
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1..40_usize, 3 => 40..1500_usize, 2 => 1500..9000_usize, 1 => 9000..36_000_usize, 1 => Just(0)]
}

fn writing() -> impl Strategy<Value = Writing> {
    use Writing::*;
    select(vec![Write, Write, Send, Send, Writev, Sendto, Sendmsg, Sendmmsg, Pwritev2, Raw])
}

fn reading() -> impl Strategy<Value = Reading> {
    use Reading::*;
    select(vec![Read, Read, Recv, Recv, Recv, Readv, Recvfrom, Recvmsg, Recvmmsg, Preadv2, Raw])
}

/// Each of these alone or with others.
fn some_of(flags: &'static [i32]) -> impl Strategy<Value = i32> {
    vec(select(flags.to_vec()), 0..3).prop_map(|list| list.into_iter().fold(0, |all, flag| all | flag))
}

fn write_flags() -> impl Strategy<Value = i32> {
    some_of(&[libc::MSG_DONTWAIT, libc::MSG_NOSIGNAL, libc::MSG_MORE])
}

fn read_flags() -> impl Strategy<Value = i32> {
    some_of(&[libc::MSG_DONTWAIT, libc::MSG_PEEK, libc::MSG_WAITALL, libc::MSG_TRUNC, libc::MSG_DONTWAIT])
}

fn polling() -> impl Strategy<Value = Polling> {
    select(vec![Polling::Poll, Polling::Poll, Polling::Ppoll, Polling::Select, Polling::Pselect])
}

fn waiting() -> impl Strategy<Value = Waiting> {
    select(vec![Waiting::Wait, Waiting::Wait, Waiting::Pwait, Waiting::Pwait2, Waiting::OneByOne])
}

fn poll_events() -> impl Strategy<Value = i16> {
    let each = [libc::POLLIN, libc::POLLIN, libc::POLLOUT, libc::POLLPRI, libc::POLLRDHUP, libc::POLLRDNORM];
    vec(select(each.to_vec()), 0..3).prop_map(|list| list.into_iter().fold(0, |all, event| all | event))
}

fn set_events() -> impl Strategy<Value = i32> {
    let each = [
        EPOLLIN,
        EPOLLIN,
        EPOLLIN,
        EPOLLOUT,
        EPOLLPRI,
        EPOLLRDHUP,
        EPOLLET,
        EPOLLET,
        EPOLLONESHOT,
        EPOLLERR,
        EPOLLHUP,
        EPOLLEXCLUSIVE,
    ];
    vec(select(each.to_vec()), 0..4).prop_map(|list| list.into_iter().fold(0, |all, event| all | event))
}

fn operation() -> impl Strategy<Value = i32> {
    use libc::{EPOLL_CTL_ADD as ADD, EPOLL_CTL_DEL as DEL, EPOLL_CTL_MOD as MOD};
    select(vec![ADD, ADD, ADD, ADD, MOD, MOD, DEL])
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![9 => any::<u8>().prop_map(Target::Socket), 1 => any::<u8>().prop_map(Target::Set)]
}

fn setting() -> impl Strategy<Value = Setting> {
    use Setting::*;
    select(vec![
        LingerZero,
        Linger,
        KeepAlive,
        ReceiveTimeout,
        LowWater(1),
        LowWater(100),
        SendBuffer,
        ReceiveBuffer,
        QuickAck,
        UserTimeout,
        Cork,
    ])
}

/// Level, name, and length in words, of options whose value does not depend on time.
fn option() -> impl Strategy<Value = (i32, i32, usize)> {
    use libc::{IPPROTO_TCP, SOL_SOCKET};
    select(vec![
        (SOL_SOCKET, libc::SO_ERROR, 1),
        (SOL_SOCKET, libc::SO_ERROR, 1),
        (SOL_SOCKET, libc::SO_TYPE, 1),
        (SOL_SOCKET, libc::SO_LINGER, 2),
        (SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (SOL_SOCKET, libc::SO_RCVTIMEO, 4),
        (SOL_SOCKET, libc::SO_RCVLOWAT, 1),
        (SOL_SOCKET, libc::SO_DOMAIN, 1),
        (SOL_SOCKET, libc::SO_OOBINLINE, 1),
        (IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (IPPROTO_TCP, libc::TCP_CORK, 1),
        (IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1),
    ])
}
