//! Spinning before a sleep: bounded by what the sleep would cost, only while it has paid lately, and giving
//! way at once when both ends share a processor.

use crate::pipe::connection::{End, Pipe};
use crate::pipe::lanes::unread;
use crate::state::config;
use crate::state::flags::SocketFlags;
use crate::sys::give_way::{self, give_way};
use crate::sys::{clock, kernel};
use core::sync::atomic::{AtomicU32, Ordering};

/// Pauses between two looks: a thread that looks more often takes the line from the writer, who is about to write it again.
const PAUSES: u32 = 4;

/// Looks between two looks at the clock.
const LOOKS: u32 = 8;

/// Rounds of looks after which this thread gives way now and then: others may wait for the processor.
const ALONE: u32 = 4;

/// Pauses before the first look of a reader to whom bytes come by themselves: some 0.8 us.
const UNHURRIED: u32 = 32;

/// The same, some 6 us, for the reader of a stream of small messages; and how many looks make one, if they took less
/// than so many microseconds each, and the last one found less than so many bytes.
const LEISURELY: u32 = 256;

const STREAM: i32 = 16;

const HASTE_US: u64 = 2;

const LITTLE: usize = 4096;

/// What [`Looks::left`](crate::state::socket::Looks) is before the first of those, which count it down by twos, and in
/// a stream: odd.
const COUNTED: i32 = 2 * STREAM;

const IN_STREAM: i32 = 1;

/// How often a thread gives way to a writer on its own processor before it sleeps.
const YIELDS: u32 = 4;

/// What a spin that used up its budget costs, where one that found something earns 1: that saved a sleep and a wake-up, which
/// take some ten microseconds of CPU time.
const FAILURE: u32 = 4;

/// The balance at which spinning stops paying, and every how many waits it is tried again.
const GIVE_UP: u32 = 8 * FAILURE;

const RETRY: u32 = 32;

/// How well spinning paid lately: what it has cost more than it has earned (low half, up to [`GIVE_UP`]), and waits since
/// spinning stopped (high half). Lost updates do no harm.
pub(crate) fn is_worth(score: &AtomicU32) -> bool {
    !kernel::is_restricted() && config::spin_us() > 0 && pays(score)
}

/// Whether that which has this score paid lately, or is to be tried again.
pub(crate) fn pays(score: &AtomicU32) -> bool {
    let seen = score.load(Ordering::Relaxed);
    if seen & 0xffff < GIVE_UP {
        return true;
    }
    let waits = (seen >> 16) + 1;
    score.store((waits % RETRY) << 16 | (seen & 0xffff), Ordering::Relaxed);
    waits.is_multiple_of(RETRY)
}

/// Learns from a wait that paid, which is all that counts then, or did not.
pub(crate) fn learn(score: &AtomicU32, paid: bool) {
    if paid { score.store(0, Ordering::Relaxed) } else { charge(score, FAILURE) }
}

fn charge(score: &AtomicU32, cost: u32) {
    let seen = score.load(Ordering::Relaxed);
    let balance = (seen & 0xffff).saturating_add(cost).min(GIVE_UP);
    score.store(seen & !0xffff | balance, Ordering::Relaxed);
}

/// Learns from a spin by what it did cost, whatever it found: a thread that had to wait for its processor until after the
/// answer had come would rather have slept. Beside strangers some spins find their answer at once and others none, because the
/// other end waits for its processor: many short ones must have earned what a long one costs.
fn learn_cost(score: &AtomicU32, found: bool, cost: u64, budget: u64) {
    if found && cost <= budget {
        let seen = score.load(Ordering::Relaxed);
        if seen & 0xffff != 0 {
            score.store((seen & 0xffff) - 1, Ordering::Relaxed);
        }
    } else {
        let cost = cost.saturating_mul(FAILURE.into()) / budget.max(1);
        charge(score, cost.clamp(1, GIVE_UP.into()) as u32);
    }
}

/// Looks until `found` or until the budget is used up; true when found, which is noted in `score`. `shares_cpu` says whether the
/// other side last ran on this processor: then only giving way can help. Where that is forbidden nothing is waited for.
pub(crate) fn until(
    score: &AtomicU32,
    mut found: impl FnMut() -> bool,
    mut shares_cpu: impl FnMut() -> bool,
) -> bool {
    let mut watch = Watch::start();
    if give_way::is_forbidden(watch.now) {
        // On a busy machine a thread that spins uses up its share of the processor, and then waits for the strangers' time
        // slices; who sleeps is woken before those have their turn.
        return false;
    }
    let budget = clock::from_us(config::spin_us().into());
    let mut rounds = 0;
    let found = loop {
        if shares_cpu() {
            if rounds >= YIELDS || !watch.give_way() {
                break false;
            }
        } else {
            if (0..LOOKS).any(|_| {
                let found = found();
                if !found {
                    pause(PAUSES);
                }
                found
            }) {
                break true;
            }
            if rounds >= ALONE {
                watch.look();
                watch.give_way();
            }
        }
        if found() {
            break true;
        }
        rounds += 1;
        watch.look();
        if watch.passed() > budget {
            break false;
        }
    };
    // What was found in the first round cannot have cost much, and what was not looked for cost nothing.
    if rounds > 0 {
        watch.look();
    }
    if !found {
        clock::calibrate();
    }
    if found || rounds > 0 {
        learn_cost(score, found, watch.cost, budget);
    }
    found
}

/// Measures how long a spin takes.
struct Watch {
    start: u64,
    now: u64,
    /// Ticks that a sleep would not have taken.
    cost: u64,
}

impl Watch {
    fn start() -> Self {
        let now = clock::ticks();
        Self { start: now, now, cost: 0 }
    }

    fn look(&mut self) {
        let now = clock::ticks();
        self.cost = self.cost.wrapping_add(now.wrapping_sub(self.now));
        self.now = now;
    }

    fn passed(&self) -> u64 {
        self.now.wrapping_sub(self.start)
    }

    /// Gives way, unless that is forbidden. What others do meanwhile is no cost, if it is what was waited for.
    fn give_way(&mut self) -> bool {
        let Some(back) = give_way(self.now) else { return false };
        let away = back.wrapping_sub(self.now);
        if give_way::is_slow(away) {
            self.cost = self.cost.wrapping_add(away);
        }
        self.now = back;
        true
    }
}

/// After a look that found `count` bytes: whether it is worth another one.
///
/// A reader that takes a stream of small messages as they come makes each of them wait for a line. So where little was found for
/// many looks in a row, and nothing was answered, more is waited for.
#[inline]
pub(crate) fn let_more_come(end: &End, count: usize) -> bool {
    let left = &end.local.looks.left;
    if end.local.unwatched.load(Ordering::Relaxed) != 0 {
        left.store(COUNTED, Ordering::Relaxed);
        return false;
    }
    let now = left.load(Ordering::Relaxed).wrapping_sub(2);
    left.store(now, Ordering::Relaxed);
    now <= 0 && wait_for_more(end, count, now)
}

#[cold]
fn wait_for_more(end: &End, count: usize, left: i32) -> bool {
    let looks = &end.local.looks;
    if kernel::is_restricted() {
        // In seccomp's strict mode even reading the time-stamp counter is forbidden (PR_SET_TSC).
        looks.left.store(COUNTED, Ordering::Relaxed);
        return false;
    }
    let now = clock::ticks();
    let passed = now.wrapping_sub(looks.since.load(Ordering::Relaxed));
    let looked = if left == IN_STREAM - 2 { 1 } else { STREAM as u64 };
    let in_stream = passed < clock::from_us(looked * HASTE_US)
        && count.wrapping_sub(1) < LITTLE
        && !end.entry.flags.load(Ordering::Relaxed).intersects(SocketFlags::NONBLOCK)
        && !end.is_writer_here();
    looks.left.store(if in_stream { IN_STREAM } else { COUNTED }, Ordering::Relaxed);
    if in_stream {
        pause(LEISURELY);
    }
    looks.since.store(clock::ticks(), Ordering::Relaxed);
    in_stream
}

fn pause(times: u32) {
    (0..times).for_each(|_| core::hint::spin_loop());
}

/// Spins for the reader of `pipe`; true when there is something to look at.
pub(crate) fn for_reader(pipe: &Pipe, seen_epoch: u32) -> bool {
    let score = &pipe.local.spin;
    if !is_worth(score) {
        return false;
    }
    let incoming = pipe.incoming();
    let shares_cpu = || pipe.is_writer_here();
    if pipe.local.unwatched.load(Ordering::Relaxed) == 0 && !shares_cpu() {
        // Nothing was answered: bytes come by themselves, and more of them at once to a thread that waits a little. A look for
        // each message costs both sides the transfer of a line.
        let looks = &pipe.local.looks;
        let in_stream = looks.left.load(Ordering::Relaxed) == IN_STREAM;
        pause(if in_stream { LEISURELY } else { UNHURRIED });
        if in_stream && incoming.has_bytes() {
            looks.since.store(clock::ticks(), Ordering::Relaxed);
        }
    }
    until(score, || unread::has_ring_bytes(pipe) || incoming.epoch() != seen_epoch, shares_cpu)
}
