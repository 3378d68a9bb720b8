//! A connection of which one end is handed on with bytes unread: as `hand_over` in src/pipe/handoff/pin.rs,
//! src/pipe/handoff/give_back.rs and src/pipe/handoff/file.rs. Nobody's patience ends here: a thread that waits in vain waits
//! for ever, so that loom notices it.

use super::{End, Item, Look};
use loom::{sync::Mutex, thread};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::handed::Asked;
use sockshim_ring::layout::{Direction, HANDED_NOT};
use sockshim_ring::sync::Ordering;
use std::sync::Arc;

/// The file in which the unread bytes lie.
struct Left {
    direction: Direction,
    bytes: Mutex<Vec<u8>>,
    has_name: Mutex<bool>,
}

/// What became of an attempt to take what is in the file.
enum Claimed {
    Nothing,
    NotMine,
    All(Vec<u8>),
}

pub(crate) struct Connection {
    /// The direction that the end reads which is handed on, and the one that it writes.
    there: Arc<End>,
    here: Arc<End>,
    left: Left,
}

impl Connection {
    /// On a pipe, with the ring open in one direction.
    pub(crate) fn one_way() -> Arc<Self> {
        Self::new(End::on_kernel())
    }

    /// With the ring open in both directions.
    pub(crate) fn on_ring() -> Arc<Self> {
        Self::new(End::on_ring())
    }

    fn new(here: Arc<End>) -> Arc<Self> {
        let left =
            Left { direction: Direction::new(8), bytes: Mutex::new(Vec::new()), has_name: Mutex::new(false) };
        Arc::new(Self { there: End::on_ring(), here, left })
    }

    /// The end that is handed on has slept.
    pub(crate) fn want_doorbell(&self) {
        self.there.direction.want_doorbell();
    }

    fn claim(&self, position: Option<u64>) -> Claimed {
        if !*self.left.has_name.lock().unwrap() {
            return Claimed::Nothing;
        }
        let direction = &self.left.direction;
        let is_next =
            position.is_none_or(|position| direction.reader.kernel_read.load(Ordering::Relaxed) == position);
        let span = direction.readable().expect("a true ring");
        if !is_next || span.length == 0 || !direction.consume(&span, span.length) {
            return Claimed::NotMine;
        }
        *self.left.has_name.lock().unwrap() = false;
        Claimed::All(self.left.bytes.lock().unwrap()[span.position as usize..].to_vec())
    }
}

/// The end that is handed on.
impl Connection {
    pub(crate) fn announce(&self) {
        self.there.direction.announce();
    }

    /// After the announcement.
    pub(crate) fn hand_over(&self) {
        self.there.close();
        let left = self.there.clear_doorbells();
        if left {
            self.put_down();
        }
        let declared = self.there.direction.declare(left);
        if left && declared && self.wake() {
            while self.there.direction.is_unanswered() {
                thread::yield_now();
            }
        }
        self.here.go_to_kernel();
    }

    /// The new program did not come: `withdraw`. What is read afterwards, in order.
    pub(crate) fn take_back(&self, count: usize) -> Vec<u8> {
        self.there.direction.reader.handed.store(HANDED_NOT, Ordering::SeqCst);
        let mut got = match self.claim(None) {
            Claimed::All(bytes) => bytes,
            Claimed::Nothing | Claimed::NotMine => Vec::new(),
        };
        self.there.receive(count, &mut got);
        got
    }

    /// True when it slept.
    fn wake(&self) -> bool {
        let here = &self.here;
        let need_wakeup =
            if is_ring(here.direction.epoch()) || here.open() { here.direction.need_wakeup() } else { 0 };
        here.answer(need_wakeup);
        need_wakeup != 0
    }

    /// `leave`.
    fn put_down(&self) {
        let from = &self.there.direction;
        let _lock = self.there.read_lock.lock().unwrap();
        let mut bytes = Vec::new();
        self.there.pull(&mut bytes, usize::MAX);
        let epoch = from.reader_epoch();
        let resume = from.switch.resume.load(Ordering::Relaxed);
        if from.epoch() != epoch && from.reader.kernel_read.load(Ordering::Relaxed) == resume {
            from.follow(epoch);
            bytes.extend(self.there.kernel_bytes(usize::MAX));
        }
        let (to, length) = (&self.left.direction, bytes.len() as u64);
        let position = from.reader.kernel_read.load(Ordering::Relaxed);
        to.producer.tail.store(length, Ordering::Relaxed);
        to.close();
        to.reader.kernel_read.store(position, Ordering::Relaxed);
        *self.left.bytes.lock().unwrap() = bytes;
        *self.left.has_name.lock().unwrap() = true;
    }
}

/// The program that gets the connection.
impl Connection {
    /// A program that knows nothing of files and doorbells.
    pub(crate) fn read_plainly(&self, count: usize) -> Vec<u8> {
        let mut got = Vec::new();
        self.read_kernel(count, &mut got);
        got
    }

    /// One that takes the file up first.
    pub(crate) fn read_with_file(&self, count: usize) -> Vec<u8> {
        let mut got = Vec::new();
        if *self.left.has_name.lock().unwrap() {
            *self.left.has_name.lock().unwrap() = false;
            let direction = &self.left.direction;
            while direction.has_bytes() {
                let span = direction.readable().expect("a true ring");
                if span.length > 0 && direction.consume(&span, 1) {
                    got.push(self.left.bytes.lock().unwrap()[span.position as usize]);
                }
            }
        }
        self.read_kernel(count, &mut got);
        got
    }

    fn read_kernel(&self, count: usize, got: &mut Vec<u8>) {
        while got.len() < count {
            self.there.kernel.wait();
            got.extend(self.there.kernel.take(1).iter().map(|item| match item {
                Item::Data(byte) => *byte,
                Item::Doorbell => panic!("a doorbell was taken for data"),
            }));
        }
    }

    pub(crate) fn answer(&self, byte: u8) {
        self.here.write_in_kernel(byte);
    }

    pub(crate) fn assert_nothing_is_asked(&self) {
        assert!(!self.there.direction.is_asked());
    }
}

/// The other end, which writes.
impl Connection {
    pub(crate) fn write(&self, byte: u8) {
        if !self.there.write_into_ring(byte) {
            if self.there.direction.is_asked() {
                self.give(true);
            }
            self.there.write_in_kernel(byte);
        }
    }

    /// A blocking read of one byte.
    pub(crate) fn read(&self) -> u8 {
        loop {
            match self.here.take(1) {
                Look::Bytes(bytes) => return bytes[0],
                Look::Empty { epoch } => {
                    if self.there.direction.is_asked() {
                        self.give(false);
                    }
                    self.here.settle();
                    self.here.doze_unless(epoch, || self.there.direction.is_awaited());
                }
            }
        }
    }

    /// Before its direction ends.
    pub(crate) fn end(&self) {
        self.there.go_to_kernel();
        if self.there.direction.is_asked() {
            self.give(true);
        }
    }

    fn give(&self, last: bool) {
        let direction = &self.there.direction;
        let asked = loop {
            match direction.asked() {
                Asked::NotYet if last => thread::yield_now(),
                Asked::NotYet | Asked::Nothing => return,
                Asked::Again(asked) => break asked,
            }
        };
        self.there.go_to_kernel();
        let claimed = self.claim(Some(self.there.kernel.written()));
        let answered = !matches!(claimed, Claimed::Nothing);
        if let Claimed::All(bytes) = claimed {
            bytes.into_iter().for_each(|byte| self.there.write_in_kernel(byte));
        }
        direction.answer(asked, answered || last);
    }
}

impl End {
    /// Whether bytes are unread; no doorbell is in the kernel's queue then, and none comes: `clear_doorbells` in
    /// src/pipe/handoff/pin.rs.
    fn clear_doorbells(&self) -> bool {
        let direction = &self.direction;
        let _ = direction.doorbell_due();
        loop {
            let lock = self.read_lock.lock().unwrap();
            self.follow();
            let _ = direction.doorbell_due();
            let in_ring = is_ring(direction.reader_epoch());
            if in_ring {
                self.discard(self.doorbells_waiting());
            }
            drop(lock);
            if !in_ring || self.doorbells_waiting() == 0 {
                break;
            }
            thread::yield_now();
        }
        direction.unwant_doorbell();
        direction.has_bytes()
    }

    /// As `follow` in src/pipe/transfer/read.rs. Under the read lock.
    fn follow(&self) {
        let direction = &self.direction;
        loop {
            let epoch = direction.reader_epoch();
            let read = direction.reader.kernel_read.load(Ordering::Relaxed);
            if direction.lead(epoch) == Ok(0) || (is_ring(epoch) && direction.has_bytes()) {
                return;
            }
            if !is_ring(epoch) {
                if direction.switch.kernel_end.load(Ordering::Relaxed) != read {
                    return;
                }
            } else if self.discard(direction.switch.resume.load(Ordering::Relaxed) - read) {
                direction.want_doorbell();
            } else {
                return;
            }
            direction.follow(epoch);
        }
    }
}
