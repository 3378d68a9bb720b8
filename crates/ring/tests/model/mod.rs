//! One direction of a connection in a model: the real [`Direction`], a ring of cells that notice data races,
//! and a kernel whose stream says of each byte whether it is data or a doorbell. Reading and writing follow
//! src/pipe/transfer/read.rs and src/pipe/transfer/write.rs step by step.

#[cfg(not(loom))]
mod cell;
#[cfg(loom)]
pub(crate) mod handed;
mod timed_wait;
#[cfg(loom)]
pub(crate) mod turns;

#[cfg(loom)]
use loom::{cell::UnsafeCell, sync::Condvar, sync::Mutex, thread};
use sockshim_ring::epoch::is_ring;
use sockshim_ring::in_flight::InFlight;
use sockshim_ring::layout::{CLOSED, Direction};
use sockshim_ring::lock_word::{Frame, Word};
use sockshim_ring::ring::{NotPublished, Seen};
use sockshim_ring::sleep::DOORBELL;
use sockshim_ring::sync::{AtomicU32, AtomicU64, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;
#[cfg(not(loom))]
use {cell::UnsafeCell, std::sync::Condvar, std::sync::Mutex, std::thread};

/// Small, so that every model fills the ring and wraps around.
const CAPACITY: usize = 2;
/// The models have no signal handlers, so every frame is the same.
const FRAME: Frame = Frame::at(0);

/// A byte of the kernel's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Data(u8),
    Doorbell,
}

/// The kernel's connection: what has been written is there at once, and stays until it is taken.
struct Kernel {
    stream: Mutex<Stream>,
    arrived: Condvar,
}

#[derive(Default)]
struct Stream {
    written: u64,
    unread: VecDeque<Item>,
    /// So many doorbells more it has no room for at first: EAGAIN, ENOBUFS or ENOMEM.
    refused: u32,
}

impl Kernel {
    fn send(&self, item: Item) {
        let mut stream = self.stream.lock().unwrap();
        stream.written += 1;
        stream.unread.push_back(item);
        drop(stream);
        self.arrived.notify_all();
    }

    /// A doorbell, without waiting; false: it has been refused.
    fn ring(&self) -> bool {
        let mut stream = self.stream.lock().unwrap();
        if let Some(left) = stream.refused.checked_sub(1) {
            stream.refused = left;
            return false;
        }
        drop(stream);
        self.send(Item::Doorbell);
        true
    }

    /// What TCP_INFO says.
    fn written(&self) -> u64 {
        self.stream.lock().unwrap().written
    }

    /// What has been taken: TCP_INFO and SIOCINQ.
    fn read(&self) -> u64 {
        let stream = self.stream.lock().unwrap();
        stream.written - stream.unread.len() as u64
    }

    /// `recv(fd, 1, MSG_PEEK)`.
    fn wait(&self) {
        let mut stream = self.stream.lock().unwrap();
        while stream.unread.is_empty() {
            stream = self.arrived.wait(stream).unwrap();
        }
    }

    fn take(&self, most: usize) -> Vec<Item> {
        let mut stream = self.stream.lock().unwrap();
        let count = most.min(stream.unread.len());
        stream.unread.drain(..count).collect()
    }
}

/// What one look gave.
pub(crate) enum Look {
    Bytes(Vec<u8>),
    Empty { epoch: u32 },
}

/// What became of a write into the ring.
#[derive(PartialEq, Eq)]
pub(crate) enum Direct {
    Published(usize),
    Full,
    Closed,
}

/// A direction with everything around it.
pub(crate) struct End {
    pub(crate) direction: Direction,
    ring: Vec<UnsafeCell<u8>>,
    kernel: Kernel,
    futex: Arc<timed_wait::Futex>,
    read_lock: Mutex<()>,
    write_lock: Word,
    /// Held by a writer while it runs, and let go between its steps: whoever takes it has stopped the writer.
    running: Mutex<()>,
    sleepers: AtomicU32,
    readers: InFlight,
    writers: InFlight,
}

// SAFETY: the cells are what the models are about: loom reports an access without an order.
unsafe impl Sync for End {}

impl End {
    /// In the kernel's lane, with a reader that knows about doorbells.
    pub(crate) fn on_kernel() -> Arc<Self> {
        let end = Self::plain();
        assert!(end.become_ready());
        end
    }

    /// In the kernel's lane, with a reader that has not said yet whether it knows about doorbells.
    pub(crate) fn plain() -> Arc<Self> {
        Self::with_capacity(CAPACITY)
    }

    fn with_capacity(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            direction: Direction::new(capacity as u32),
            ring: (0..capacity).map(|_| UnsafeCell::new(0)).collect(),
            kernel: Kernel { stream: Mutex::default(), arrived: Condvar::new() },
            futex: Arc::new(timed_wait::Futex::new()),
            read_lock: Mutex::new(()),
            write_lock: Word::new(0),
            running: Mutex::new(()),
            sleepers: AtomicU32::new(0),
            readers: InFlight::default(),
            writers: InFlight::default(),
        })
    }

    /// As `become_ready` in src/pipe/meeting/attach.rs.
    pub(crate) fn become_ready(&self) -> bool {
        let _lock = self.read_lock.lock().unwrap();
        if !self.readers.make_ready(0) {
            return false;
        }
        let direction = &self.direction;
        direction.reader.kernel_read.store(self.kernel.read(), Ordering::Relaxed);
        direction.want_doorbell();
        direction.reader.ready.store(1, Ordering::SeqCst);
        true
    }

    /// In a ring epoch that both sides are in.
    pub(crate) fn on_ring() -> Arc<Self> {
        Self::on_ring_of(CAPACITY)
    }

    pub(crate) fn on_ring_of(capacity: usize) -> Arc<Self> {
        let end = Self::with_capacity(capacity);
        assert!(end.become_ready());
        assert!(end.direction.open(0, 0));
        end.direction.follow(0);
        end.direction.unwant_doorbell();
        end
    }

    pub(crate) fn tail(&self) -> u64 {
        self.direction.producer.tail.load(Ordering::Relaxed) & !CLOSED
    }

    /// Nothing that the kernel still holds is data.
    pub(crate) fn assert_only_doorbells_left(&self) {
        assert!(self.kernel.take(usize::MAX).iter().all(|item| *item == Item::Doorbell));
    }
}

/// The writer's side.
impl End {
    /// Copy first, publish after.
    pub(crate) fn push(&self, seen_head: &mut u64, bytes: &[u8]) -> Direct {
        let span = self.direction.writable(seen_head, bytes.len()).expect("a true ring");
        let count = span.length.min(bytes.len());
        if count == 0 {
            return Direct::Full;
        }
        let mut from = bytes.iter();
        for (offset, length) in span.pieces(0, count) {
            for (cell, byte) in self.ring[offset..].iter().take(length).zip(&mut from) {
                // SAFETY: loom checks that nobody else touches the cell.
                cell.with_mut(|cell| unsafe { *cell = *byte });
            }
        }
        match self.direction.publish(span.position, count) {
            Ok(()) => Direct::Published(count),
            Err(NotPublished::Closed) => Direct::Closed,
            Err(NotPublished::Moved) => unreachable!("one writer"),
        }
    }

    /// Writes a byte by whichever lane takes it; true: through the ring.
    pub(crate) fn write(&self, byte: u8) -> bool {
        let written = self.write_into_ring(byte);
        if !written {
            self.write_in_kernel(byte);
        }
        written
    }

    /// False: this end is in the kernel's lane now.
    fn write_into_ring(&self, byte: u8) -> bool {
        if is_ring(self.direction.epoch()) || self.open() {
            let mut seen_head = self.direction.room.released.load(Ordering::Acquire);
            if let Direct::Published(_) = self.push(&mut seen_head, &[byte]) {
                self.answer(self.direction.need_wakeup());
                return true;
            }
            self.go_to_kernel();
        }
        false
    }

    /// A writer that shares its end with others: as `send` and `through_kernel` in src/pipe/transfer/write.rs.
    pub(crate) fn write_beside_others(&self, byte: u8, into_ring: bool) {
        let turn = self.running.lock().unwrap();
        if into_ring && self.writers.is_empty() && self.open() {
            let mut seen_head = 0;
            assert!(matches!(self.push(&mut seen_head, &[byte]), Direct::Published(1)));
            return self.answer(self.direction.need_wakeup());
        }
        self.go_to_kernel();
        assert!(self.writers.enter(0));
        drop(turn);
        self.write_in_kernel(byte);
        self.writers.leave(0);
    }

    /// The next `count` doorbells find no room in the kernel.
    pub(crate) fn refuse_doorbells(&self, count: u32) {
        self.kernel.stream.lock().unwrap().refused = count;
    }

    /// As `ring_doorbell` and `ring_if_owed` in src/pipe/transfer/write.rs.
    fn ring_if_wanted(&self) {
        while !self.ring_once() {
            thread::yield_now();
            let direction = &self.direction;
            if !direction.has_bytes() || direction.need_wakeup() & DOORBELL == 0 {
                break;
            }
        }
    }

    /// Counted before the need-wakeup flag is taken: as `ring_quietly`. False: the kernel has refused it, and somebody may
    /// sleep who does not know of what was published.
    fn ring_once(&self) -> bool {
        let direction = &self.direction;
        let doorbells = &direction.switch.doorbells;
        doorbells.fetch_add(1, Ordering::SeqCst);
        let is_due = direction.doorbell_due();
        if is_due && self.kernel.ring() {
            return true;
        }
        doorbells.fetch_sub(1, Ordering::Release);
        if !is_due {
            return true;
        }
        direction.want_doorbell();
        let taken = direction
            .reader
            .kernel_read
            .load(Ordering::SeqCst)
            .wrapping_sub(direction.switch.kernel_end.load(Ordering::Relaxed));
        taken != doorbells.load(Ordering::Relaxed)
    }

    /// Publishes a byte, and is killed when it is about to send the doorbell.
    pub(crate) fn write_and_die_ringing(&self, me: u32, byte: u8) {
        self.write_lock.take(me, FRAME).expect("nobody has it");
        let mut seen_head = 0;
        assert!(matches!(self.push(&mut seen_head, &[byte]), Direct::Published(1)));
        assert!(self.write_lock.ringing(me));
        let due = self.direction.doorbell_due();
        self.direction.switch.doorbells.fetch_add(u64::from(due), Ordering::Release);
    }

    /// Takes the lock from the dead, and writes: as `lock_writes` in src/pipe/transfer/write.rs.
    pub(crate) fn write_after_the_dead(&self, me: u32, byte: u8) {
        let owner = self.write_lock.content();
        assert_ne!(owner.owner(), 0);
        assert_eq!(self.write_lock.take_from(owner, me, FRAME), Some(true));
        self.direction.want_doorbell();
        let mut seen_head = self.direction.room.released.load(Ordering::Acquire);
        assert!(matches!(self.push(&mut seen_head, &[byte]), Direct::Published(1)));
        self.ring_if_wanted();
        let _ = self.write_lock.let_go(me, false);
    }

    /// A writer that has the lock, and may be stopped after each of its steps: as `push`, `open_quietly`, `ring_doorbell` and
    /// `spill_quietly` in src/pipe/transfer/write.rs.
    pub(crate) fn write_in_steps(&self, me: u32, byte: u8) {
        let mut runs = Some(self.running.lock().unwrap());
        let mut step = || {
            drop(runs.take());
            runs = Some(self.running.lock().unwrap());
        };
        step();
        let mut published = false;
        if is_ring(self.direction.epoch()) || self.open_in_steps(&mut step) {
            let mut seen_head = self.direction.room.released.load(Ordering::Acquire);
            published = matches!(self.push(&mut seen_head, &[byte]), Direct::Published(1));
            step();
        }
        if published {
            if self.ring_in_steps(me, &mut step) {
                let _ = self.write_lock.let_go(me, false);
            }
            return;
        }
        self.spill_in_steps(&mut step);
        self.write_in_kernel(byte);
        let _ = self.write_lock.let_go(me, false);
    }

    /// False: somebody has fenced us off, and rings in our place. A writer with more to write would take the lock
    /// again.
    fn ring_in_steps(&self, me: u32, step: &mut impl FnMut()) -> bool {
        if !self.write_lock.ringing(me) {
            return false;
        }
        step();
        if is_ring(self.direction.epoch()) && self.direction.doorbell_due() {
            step();
            self.direction.switch.doorbells.fetch_add(1, Ordering::Release);
            step();
            // The look at the word and the call are one step: a thread that is stopped between the two looks again.
            let send = |word: &AtomicU64, value| {
                (word.load(Ordering::Relaxed) as u32 == value).then(|| self.kernel.send(Item::Doorbell))
            };
            let sent = self.write_lock.owning(me, send);
            step();
            if sent.is_none() {
                self.direction.switch.doorbells.fetch_sub(1, Ordering::Release);
            }
        }
        step();
        self.write_lock.rung(me)
    }

    fn open_in_steps(&self, step: &mut impl FnMut()) -> bool {
        let direction = &self.direction;
        let epoch = direction.epoch();
        if direction.is_shut()
            || direction.reader.ready.load(Ordering::Acquire) != 1
            || direction.reader_epoch() != epoch
        {
            return false;
        }
        let written = self.kernel.written();
        step();
        direction.reopen();
        step();
        let ready = direction.reader.ready.load(Ordering::SeqCst) == 1;
        step();
        let opened = ready && direction.open(epoch, written);
        step();
        opened
    }

    fn spill_in_steps(&self, step: &mut impl FnMut()) {
        let direction = &self.direction;
        let epoch = direction.epoch();
        if !is_ring(epoch) {
            return;
        }
        step();
        direction.close();
        let tail = self.tail();
        step();
        let resume = self.kernel.written();
        step();
        direction.spill(epoch, tail, resume);
        step();
    }

    /// Another writer of the same end, which may find the first one stopped: as `fence_off` in src/pipe/transfer/write.rs.
    pub(crate) fn write_around(&self, me: u32, byte: u8) {
        let direction = &self.direction;
        if self.write_lock.take(me, FRAME).is_err() {
            let _stopped = self.running.lock().unwrap();
            direction.close();
            direction.shut();
            let owner = self.write_lock.content();
            let owes = match owner.owner() {
                0 => self.write_lock.take(me, FRAME).is_err(),
                _ => self.write_lock.take_from(owner, me, FRAME).expect("it is stopped"),
            };
            assert_eq!(self.write_lock.caller(), 0, "the look and the call are one step");
            if owes && is_ring(direction.epoch()) {
                direction.want_doorbell();
                self.ring_if_wanted();
            }
        }
        self.go_to_kernel();
        self.write_in_kernel(byte);
        let _ = self.write_lock.let_go(me, false);
    }

    /// The lock of the end's writers, for its first owner.
    pub(crate) fn lock_writes(&self, me: u32) {
        self.write_lock.take(me, FRAME).expect("nobody has it");
    }

    pub(crate) fn write_in_kernel(&self, byte: u8) {
        self.kernel.send(Item::Data(byte));
    }

    /// As `open_quietly` in src/pipe/transfer/write.rs.
    fn open(&self) -> bool {
        let direction = &self.direction;
        let epoch = direction.epoch();
        if direction.reader.ready.load(Ordering::Acquire) != 1 || direction.reader_epoch() != epoch {
            return false;
        }
        let written = self.kernel.written();
        direction.reopen();
        direction.reader.ready.load(Ordering::SeqCst) == 1 && direction.open(epoch, written)
    }

    /// As `spill_quietly` in src/pipe/transfer/write.rs.
    pub(crate) fn go_to_kernel(&self) {
        let direction = &self.direction;
        let epoch = direction.epoch();
        if is_ring(epoch) {
            direction.close();
            direction.spill(epoch, self.tail(), self.kernel.written());
            self.end_timed_waits();
        }
    }
}

/// The reader's side.
impl End {
    /// Takes what the ring has, at most `most` bytes.
    pub(crate) fn pull(&self, got: &mut Vec<u8>, most: usize) {
        self.pull_from(&mut Seen::default(), got, most);
    }

    pub(crate) fn pull_from(&self, seen: &mut Seen, got: &mut Vec<u8>, most: usize) {
        let span = self.direction.readable_from(seen, most).expect("a true ring");
        let count = span.length.min(most);
        for (offset, length) in span.pieces(0, count) {
            for cell in self.ring[offset..].iter().take(length) {
                // SAFETY: loom checks that nobody writes the cell.
                got.push(cell.with(|cell| unsafe { *cell }));
            }
        }
        if count > 0 {
            assert!(self.direction.consume(&span, count));
        }
    }

    /// One look at the lanes: `take_locked` in src/pipe/transfer/read.rs.
    pub(crate) fn take(&self, wanted: usize) -> Look {
        let direction = &self.direction;
        let _lock = self.read_lock.lock().unwrap();
        loop {
            let epoch = direction.reader_epoch();
            if is_ring(epoch) {
                let mut got = Vec::new();
                self.pull(&mut got, wanted);
                if !got.is_empty() {
                    return Look::Bytes(got);
                }
                let ahead = direction.epoch();
                if ahead == epoch {
                    return Look::Empty { epoch };
                }
                if direction.has_bytes() {
                    continue;
                }
                let resume = direction.switch.resume.load(Ordering::Relaxed);
                if !self.discard(resume - direction.reader.kernel_read.load(Ordering::Relaxed)) {
                    return Look::Empty { epoch: ahead };
                }
                // Somebody may rely on a doorbell that is gone now.
                direction.want_doorbell();
                direction.follow(epoch);
            } else if direction.enter_kernel(epoch) {
                let got = self.kernel_bytes(wanted);
                direction.leave_kernel();
                return if got.is_empty() { Look::Empty { epoch } } else { Look::Bytes(got) };
            } else {
                assert_ne!(direction.epoch(), epoch, "somebody is BUSY without the lock");
                let end = direction.switch.kernel_end.load(Ordering::Relaxed);
                let left = end
                    .checked_sub(direction.reader.kernel_read.load(Ordering::Relaxed))
                    .expect("not beyond");
                if left == 0 {
                    direction.follow(epoch);
                    continue;
                }
                let ahead = direction.epoch();
                let got = self.kernel_bytes(wanted.min(left as usize));
                return if got.is_empty() { Look::Empty { epoch: ahead } } else { Look::Bytes(got) };
            }
        }
    }

    fn advance(&self, count: usize) {
        let position = &self.direction.reader.kernel_read;
        position.store(position.load(Ordering::Relaxed) + count as u64, Ordering::Relaxed);
    }

    fn kernel_bytes(&self, wanted: usize) -> Vec<u8> {
        let items = self.kernel.take(wanted);
        self.advance(items.len());
        items
            .iter()
            .map(|item| match item {
                Item::Data(byte) => *byte,
                Item::Doorbell => panic!("a doorbell was taken for data"),
            })
            .collect()
    }

    /// Throws `count` doorbells away; true when all of them had arrived.
    fn discard(&self, count: u64) -> bool {
        let items = self.kernel.take(count as usize);
        self.advance(items.len());
        assert!(items.iter().all(|item| *item == Item::Doorbell), "data was thrown away");
        items.len() as u64 == count
    }

    fn doorbells_waiting(&self) -> u64 {
        let direction = &self.direction;
        let taken = direction
            .reader
            .kernel_read
            .load(Ordering::Relaxed)
            .wrapping_sub(direction.switch.kernel_end.load(Ordering::Relaxed));
        let waiting = direction.switch.doorbells.load(Ordering::Acquire).wrapping_sub(taken);
        if waiting < 1 << 32 { waiting } else { 0 }
    }

    /// Takes away the doorbells that were rung before this look at the ring found nothing: the bytes that they
    /// were rung for have been read. If somebody relies on a doorbell, the need-wakeup flag is set again first, so that the
    /// next publication rings again; and that doorbell, being younger, stays.
    pub(crate) fn settle(&self) {
        if self.doorbells_waiting() == 0 {
            return;
        }
        let direction = &self.direction;
        let _lock = self.read_lock.lock().unwrap();
        let epoch = direction.reader_epoch();
        let waiting = self.doorbells_waiting();
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            direction.want_doorbell();
        }
        if is_ring(epoch) && direction.epoch() == epoch && !direction.has_bytes() {
            self.discard(waiting);
        }
    }

    /// A read of one byte that knows nothing of doorbells, while such reads are allowed.
    pub(crate) fn receive_plainly(&self) -> u8 {
        if !self.readers.enter(0) {
            let mut got = Vec::new();
            self.receive(1, &mut got);
            return got[0];
        }
        let byte = loop {
            self.kernel.wait();
            match self.kernel.take(1)[..] {
                [Item::Data(byte)] => break byte,
                [Item::Doorbell] => panic!("a doorbell was taken for data"),
                _ => {}
            }
        };
        self.readers.leave(0);
        byte
    }

    /// One wait in an epoll set, for a connection that stays hot over it: as `arm` and `disarm_all` in
    /// src/readiness/epoll/hot.rs.
    pub(crate) fn wait_in_a_set(&self) {
        self.settle();
        self.want_doorbell();
        if !self.direction.has_bytes() {
            self.kernel.wait();
        }
        let _lock = self.read_lock.lock().unwrap();
        if self.sleepers.load(Ordering::SeqCst) == 0 {
            self.direction.unwant_doorbell();
        }
    }

    /// Under the read lock, so that nobody takes the need-wakeup flag back by mistake.
    fn want_doorbell(&self) {
        let _lock = self.read_lock.lock().unwrap();
        self.direction.want_doorbell();
    }

    /// A blocking read of `count` bytes, in pieces of one byte.
    pub(crate) fn receive(&self, count: usize, got: &mut Vec<u8>) {
        while got.len() < count {
            match self.take(1) {
                Look::Bytes(bytes) => got.extend(bytes),
                Look::Empty { epoch } => self.sleep(epoch),
            }
        }
    }

    /// Writer: sleeps until there is room, with a doorbell wanted in the direction that it reads: as `arm` in
    /// src/readiness/epoll/hot.rs.
    pub(crate) fn sleep_for_room(&self, own: &Self) {
        let epoch = own.direction.reader_epoch();
        own.settle();
        own.doze_unless(epoch, || self.direction.await_room(DOORBELL).is_none());
    }

    /// Reader: wakes such a writer, as `ring` in src/pipe/waiting/room.rs; `own` is the direction that it writes.
    pub(crate) fn tell_of_room(&self, own: &Self) {
        if self.direction.room_due() != 0 {
            own.ring_if_wanted();
        }
    }

    fn sleep(&self, epoch: u32) {
        self.settle();
        self.doze(epoch);
    }

    /// The second half of a sleep: says that it sleeps, looks again, waits.
    pub(crate) fn doze(&self, epoch: u32) {
        self.doze_unless(epoch, || false);
    }

    fn doze_unless(&self, epoch: u32, is_due: impl Fn() -> bool) {
        let direction = &self.direction;
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        self.want_doorbell();
        let changed = direction.epoch() != epoch || (is_ring(epoch) && direction.has_bytes()) || is_due();
        if changed {
            // Everything else that this thread could wait for needs the others to run.
            thread::yield_now();
        } else {
            self.kernel.wait();
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }

    /// First the promise, then the ring: as `close_lanes` in src/pipe/handoff/pin.rs.
    pub(crate) fn close(&self) {
        let _lock = self.read_lock.lock().unwrap();
        self.direction.reader.ready.store(0, Ordering::SeqCst);
        self.direction.close();
        self.end_timed_waits();
    }
}
