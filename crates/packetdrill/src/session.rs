//! Which thread may use the stack, and how time passes.
//!
//! packetdrill runs a script on two threads. The main thread injects packets, waits for packets and makes most calls; the
//! other one makes the calls that a script expects to block. Time is virtual: it stands still unless one of them waits,
//! and then jumps from one of the stack's deadlines to the next.
//!
//! A blocked call sleeps in [`Session::wait`] and is retried after every step of the stack. When it is over the main
//! thread stands still until the other thread has asked what time it is, because that is what packetdrill takes as the
//! end of the call.

use core::time::Duration;
use std::thread::{self, ThreadId};

use libc::c_int;
use parking_lot::{Condvar, Mutex, MutexGuard};
use sockshim_tcpip::time::Instant;

use crate::errno::{Answer, Errno};
use crate::world::World;

/// How long a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    For(Duration),
    Forever,
}

/// What the thread that makes blocking calls is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleeper {
    /// Nothing in the stack.
    Away,
    /// Blocked; the call gives up at the deadline.
    Asleep(Option<Instant>),
    /// The stack has changed: it looks whether the call can end.
    Looking,
    /// The call has ended and its time was not yet asked for.
    Leaving,
}

struct State {
    world: Option<World>,
    main: Option<ThreadId>,
    sleeper: Sleeper,
}

/// The one stack of this process.
pub(crate) struct Session {
    state: Mutex<State>,
    /// The sleeper has moved on, in either direction.
    moved: Condvar,
}

pub(crate) static SESSION: Session = Session {
    state: Mutex::new(State { world: None, main: None, sleeper: Sleeper::Away }),
    moved: Condvar::new(),
};

/// A queue that stays empty for longer than this stays empty for ever: a keepalive is due after two hours, and no
/// script waits for one.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

impl Session {
    /// A new stack, driven by the calling thread.
    pub(crate) fn open(&self, world: World) {
        let mut state = self.state.lock();
        *state = State { world: Some(world), main: Some(thread::current().id()), sleeper: Sleeper::Away };
    }

    pub(crate) fn close(&self) {
        self.state.lock().world = None;
    }

    /// Whether a descriptor is one of the stack's.
    pub(crate) fn owns(&self, fd: c_int) -> bool {
        self.state.lock().world.as_mut().is_some_and(|world| world.descriptor(fd).is_ok())
    }

    /// A call that cannot block.
    pub(crate) fn call<R>(&self, call: impl FnOnce(&mut World) -> Answer<R>) -> Answer<R> {
        let mut state = self.state.lock();
        let answer = call(state.world()?);
        state.world()?.collect();
        self.settle(&mut state);
        answer
    }

    /// A call that may block: retried while it returns EAGAIN and its time is not over.
    pub(crate) fn wait<R>(
        &self,
        patience: impl FnOnce(&World) -> Patience,
        mut attempt: impl FnMut(&mut World) -> Answer<R>,
    ) -> Answer<R> {
        let mut state = self.state.lock();
        let world = state.world()?;
        let patience = patience(world);
        let mut answer = attempt(world);
        world.collect();
        let deadline = match patience {
            Patience::None => {
                self.settle(&mut state);
                return answer;
            }
            Patience::For(time) => Some(world.now() + time),
            Patience::Forever => None,
        };

        let main = state.main == Some(thread::current().id());
        while matches!(answer, Err(Errno::EAGAIN)) && deadline.is_none_or(|it| it > state.now()) {
            if main {
                // A script that waits on the main thread: no other thread can let time pass.
                let due = state.world()?.deadline();
                let Some(next) = due.into_iter().chain(deadline).min() else { return Err(Errno::EDEADLK) };
                self.advance(&mut state, next);
            } else {
                state.sleeper = Sleeper::Asleep(deadline);
                self.moved.notify_all();
                self.moved.wait_while(&mut state, |state| matches!(state.sleeper, Sleeper::Asleep(_)));
            }
            let world = state.world()?;
            answer = attempt(world);
            world.collect();
        }
        if !main && state.sleeper == Sleeper::Looking {
            state.sleeper = Sleeper::Leaving;
            self.moved.notify_all();
        }
        answer
    }

    /// A packet reaches the stack.
    pub(crate) fn inject(&self, packet: &[u8]) {
        let mut state = self.state.lock();
        if let Some(world) = state.world.as_mut() {
            world.receive(packet);
            world.collect();
        }
        self.settle(&mut state);
    }

    /// The next packet that left the stack, and when; `None` when none will.
    pub(crate) fn next_packet(&self) -> Option<(Instant, Vec<u8>)> {
        let mut state = self.state.lock();
        let limit = state.now() + LONGEST_WAIT;
        loop {
            if let Some(packet) = state.world.as_mut()?.take_packet() {
                return Some(packet);
            }
            let next = state.next()?;
            if next > limit {
                return None;
            }
            self.advance(&mut state, next);
        }
    }

    /// Time passes.
    pub(crate) fn sleep(&self, time: Duration) {
        let mut state = self.state.lock();
        let until = state.now() + time;
        self.advance(&mut state, until);
    }

    /// The time, which passes whenever a thread reads the clock: both threads wait the last microseconds before their next
    /// step by doing so.
    pub(crate) fn time(&self) -> Instant {
        let mut state = self.state.lock();
        let now = state.now();
        if state.main != Some(thread::current().id()) && state.sleeper == Sleeper::Leaving {
            state.sleeper = Sleeper::Away;
            self.moved.notify_all();
        } else {
            self.advance(&mut state, now + Duration::from_micros(1));
        }
        now
    }

    /// Lets time pass until `until`, running all that is due on the way at its time.
    fn advance(&self, state: &mut MutexGuard<'_, State>, until: Instant) {
        while let Some(next) = state.next().filter(|next| *next <= until) {
            let Some(world) = state.world.as_mut() else { return };
            world.run(next);
            self.settle(state);
        }
        if let Some(world) = state.world.as_mut() {
            world.set_time(until);
        }
    }

    /// Lets a blocked call look at what has changed, and waits until it sleeps again or is over.
    fn settle(&self, state: &mut MutexGuard<'_, State>) {
        if let Sleeper::Asleep(_) = state.sleeper {
            state.sleeper = Sleeper::Looking;
            self.moved.notify_all();
        }
        self.moved.wait_while(state, |state| matches!(state.sleeper, Sleeper::Looking | Sleeper::Leaving));
    }
}

impl State {
    fn world(&mut self) -> Answer<&mut World> {
        self.world.as_mut().ok_or(Errno::EBADF)
    }

    fn now(&self) -> Instant {
        self.world.as_ref().map_or(Instant::default(), World::now)
    }

    /// The next time at which something happens by itself.
    fn next(&self) -> Option<Instant> {
        let gives_up = match self.sleeper {
            Sleeper::Asleep(deadline) => deadline,
            _ => None,
        };
        self.world.as_ref()?.deadline().into_iter().chain(gives_up).min()
    }
}
