use super::{CLOSED, Damaged, MAX_CAPACITY, NotPublished, Seen, Span};
use crate::layout::Direction;
use crate::sync::Ordering;
use proptest::prelude::*;
use std::collections::VecDeque;

/// A direction with its ring, and what it should hold.
struct Model {
    direction: Direction,
    ring: Vec<u8>,
    seen_head: u64,
    seen: Seen,
    expected: VecDeque<u8>,
    next: u8,
}

impl Model {
    /// An empty ring whose positions start at `position`.
    fn new(capacity: u32, position: u64) -> Self {
        let direction = Direction::new(capacity);
        direction.producer.tail.store(position, Ordering::Relaxed);
        direction.consumer.head.store(position, Ordering::Relaxed);
        direction.room.released.store(position, Ordering::Relaxed);
        Self {
            direction,
            ring: vec![0; MAX_CAPACITY as usize],
            seen_head: position,
            seen: Seen::default(),
            expected: VecDeque::new(),
            next: 0,
        }
    }

    /// Writes up to `count` bytes; how many there was room for.
    fn write(&mut self, count: usize) -> usize {
        let span = self.direction.writable(&mut self.seen_head, count).expect("a true ring");
        let count = span.length.min(count);
        for (offset, length) in span.pieces(0, count) {
            for place in &mut self.ring[offset..offset + length] {
                self.next = self.next.wrapping_add(1);
                *place = self.next;
                self.expected.push_back(self.next);
            }
        }
        self.direction.publish(span.position, count).expect("the only writer");
        count
    }

    /// The first `count` bytes, or all there are, in two steps that meet at `split`.
    fn look(&self, count: usize, split: usize) -> (Span, Vec<u8>) {
        let span = self.direction.readable().expect("a true ring");
        let count = span.length.min(count);
        let split = split.min(count);
        let mut bytes = Vec::new();
        for (offset, length) in span.pieces(0, split).into_iter().chain(span.pieces(split, count - split)) {
            bytes.extend_from_slice(&self.ring[offset..offset + length]);
        }
        (span, bytes)
    }

    fn read(&mut self, count: usize, split: usize) {
        let (span, bytes) = self.look(count, split);
        let from_copy = self.direction.readable_from(&mut self.seen, count).expect("a true ring");
        assert_eq!(from_copy.length.min(count), bytes.len());
        if !bytes.is_empty() {
            assert_eq!((from_copy.position, from_copy.capacity), (span.position, span.capacity));
        }
        assert_eq!(bytes, self.expected.drain(..bytes.len()).collect::<Vec<_>>());
        assert!(self.direction.consume(&span, bytes.len()));
    }

    fn peek(&self, count: usize, split: usize) {
        let (_, bytes) = self.look(count, split);
        assert!(self.expected.iter().take(count).eq(&bytes));
    }

    /// What a writer does that finds its ring too small and empty.
    fn grow(&self) {
        let capacity = self.direction.producer.capacity.load(Ordering::Relaxed);
        if !self.direction.has_bytes() && capacity < 1 << 12 {
            self.direction.producer.capacity.store(capacity * 2, Ordering::Release);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    Read(usize, usize),
    Peek(usize, usize),
    Grow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..200usize).prop_map(Step::Write),
        3 => (0..200usize, 0..200usize).prop_map(|(count, split)| Step::Read(count, split)),
        1 => (0..200usize, 0..200usize).prop_map(|(count, split)| Step::Peek(count, split)),
        1 => Just(Step::Grow),
    ];
    prop::collection::vec(step, 0..200)
}

fn run(mut model: Model, steps: &[Step]) {
    for step in steps {
        let before = model.expected.len();
        match *step {
            Step::Write(count) => {
                let capacity = model.direction.producer.capacity.load(Ordering::Relaxed) as usize;
                let written = model.write(count);
                assert!(written <= count.min(capacity - before));
                assert!(written >= count.min((capacity - before).saturating_sub(capacity / 4)));
            }
            Step::Read(count, split) => model.read(count, split),
            Step::Peek(count, split) => model.peek(count, split),
            Step::Grow => model.grow(),
        }
        assert_eq!(model.direction.has_bytes(), !model.expected.is_empty());
    }
    model.read(usize::MAX, 0);
    assert!(model.expected.is_empty());
}

/// Garbage that is likely to be nearly right, too.
fn words() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..5000u64,
        (0..5000u64).prop_map(|low| CLOSED - low),
        (0..5000u64).prop_map(|low| CLOSED | low),
        (0..5000u64).prop_map(|low| u64::MAX - low),
    ]
}

fn capacities() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0..32u32).prop_map(|shift| 1 << shift), Just(0)]
}

fn assert_inside(span: Span, skip: usize, count: usize) {
    for (offset, length) in span.pieces(skip, count) {
        assert!(offset + length <= span.capacity as usize, "{span:?} {skip} {count}");
    }
}

proptest! {
    #[test]
    fn any_words_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
        crate::fuzzing::direction_words(&bytes);
    }
}

proptest! {
    #[cfg_attr(miri, ignore = "a megabyte for each case")]
    #[test]
    fn bytes_come_out_as_they_went_in(steps in steps(), shift in 0..9u32, start in 0..1000u64) {
        run(Model::new(1 << shift, start), &steps);
    }

    #[test]
    fn positions_wrap_around(steps in steps(), shift in 0..9u32, before in 0..2000u64) {
        run(Model::new(1 << shift, CLOSED - 1 - before), &steps);
    }

    #[test]
    fn garbage_in_shared_words_stays_inside_the_ring(
        tail in words(),
        head in words(),
        seen_head in words(),
        released in words(),
        shift in 0..22u32,
        capacity in capacities(),
        wanted in any::<usize>(),
        skip in any::<usize>(),
        count in any::<usize>(),
    ) {
        let direction = Direction::new(capacity);
        direction.producer.tail.store(tail, Ordering::Relaxed);
        direction.consumer.head.store(head, Ordering::Relaxed);
        direction.room.released.store(released, Ordering::Relaxed);
        let mut seen_head = seen_head;
        // A private copy: its capacity has been checked.
        let mut seen = Seen { tail: seen_head, capacity: 1 << shift };
        let looks = [
            direction.writable(&mut seen_head, wanted),
            direction.readable_from(&mut seen, wanted),
            direction.readable(),
        ];
        for span in looks.into_iter().flatten() {
            prop_assert!(span.capacity <= MAX_CAPACITY);
            prop_assert!(span.length <= span.capacity as usize);
            assert_inside(span, skip, count);
            assert_inside(span, 0, span.length);
            let _ = direction.publish(span.position, count);
            let _ = direction.consume(&span, count);
        }
        let _ = direction.has_bytes();
        direction.close();
        prop_assert!(direction.is_closed());
    }

    #[test]
    fn pieces_are_inside_and_complete(
        position in any::<u64>(),
        shift in 0..21u32,
        skip in 0..usize::MAX / 2,
        count in 0..1usize << 20,
    ) {
        let capacity = 1u32 << shift;
        let span = Span { position, length: capacity as usize, capacity };
        let count = count.min(capacity as usize);
        assert_inside(span, skip, count);
        let [first, second] = span.pieces(skip, count);
        prop_assert_eq!(first.1 + second.1, count);
    }
}

#[test]
fn without_a_ring_there_are_no_pieces() {
    let span = Span { position: 12345, length: 0, capacity: 0 };
    assert_eq!(span.pieces(7, 0), [(0, 0), (0, 0)]);
    assert_eq!(span.pieces(7, usize::MAX), [(0, 0), (0, 0)]);
}

#[test]
fn a_capacity_that_cannot_be_is_damage() {
    for capacity in [3, 4097, MAX_CAPACITY + 1, MAX_CAPACITY * 2, u32::MAX] {
        let direction = Direction::new(capacity);
        assert_eq!(direction.writable(&mut 0, 1), Err(Damaged));
        assert_eq!(direction.readable(), Err(Damaged));
    }
}

#[test]
fn an_index_that_cannot_be_is_damage() {
    let direction = Direction::new(64);
    direction.producer.tail.store(65, Ordering::Relaxed);
    assert_eq!(direction.readable(), Err(Damaged));
    assert_eq!(direction.writable(&mut 0, 1), Err(Damaged));
    direction.producer.tail.store(10, Ordering::Relaxed);
    direction.consumer.head.store(11, Ordering::Relaxed);
    assert_eq!(direction.readable(), Err(Damaged));
}

#[test]
fn the_copy_of_head_is_renewed_only_when_it_matters() {
    let mut model = Model::new(64, 0);
    model.write(60);
    model.read(60, 0);
    let mut seen_head = 0;
    assert_eq!(model.direction.writable(&mut seen_head, 4).map(|span| span.length), Ok(4));
    assert_eq!(seen_head, 0);
    assert_eq!(model.direction.writable(&mut seen_head, 5).map(|span| span.length), Ok(64));
    assert_eq!(seen_head, 60);
}

#[test]
fn the_copy_of_tail_is_renewed_only_when_it_matters() {
    let mut model = Model::new(64, 0);
    let mut seen = Seen::default();
    model.write(10);
    assert_eq!(model.direction.readable_from(&mut seen, 4).map(|span| span.length), Ok(10));
    model.write(10);
    assert_eq!(model.direction.readable_from(&mut seen, 10).map(|span| span.length), Ok(10));
    assert_eq!(model.direction.readable_from(&mut seen, 11).map(|span| span.length), Ok(20));
    model.read(20, 0);
    model.grow();
    model.write(100);
    assert_eq!(model.direction.readable_from(&mut seen, 1).map(|span| span.capacity), Ok(128));
}

#[test]
fn room_is_released_by_the_quarter_and_when_the_ring_is_empty() {
    let mut model = Model::new(64, 0);
    let released = |model: &Model| model.direction.room.released.load(Ordering::Relaxed);
    model.write(40);
    model.read(15, 0);
    assert_eq!(released(&model), 0);
    model.read(1, 0);
    assert_eq!(released(&model), 16);
    model.read(15, 0);
    assert_eq!(released(&model), 16);
    model.read(9, 0);
    assert_eq!(released(&model), 40);
    model.write(3);
    model.read(3, 0);
    assert_eq!(released(&model), 40);
    assert_eq!(model.direction.readable().map(|span| span.length), Ok(0));
    assert_eq!(released(&model), 43);
}

#[test]
fn who_comes_late_takes_no_released_room_back() {
    let mut model = Model::new(64, 0);
    model.write(64);
    // A signal handler reads everything between a look and what comes of it.
    let late = model.direction.room.released.load(Ordering::Relaxed);
    model.read(64, 0);
    model.direction.release(late, 16);
    assert_eq!(model.direction.room.released.load(Ordering::Relaxed), 64);
}

#[test]
fn a_closed_ring_takes_nothing_and_gives_what_it_has() {
    let mut model = Model::new(64, 0);
    model.write(10);
    model.direction.close();
    assert_eq!(model.direction.publish(10, 5), Err(NotPublished::Closed));
    model.read(10, 3);
    assert!(!model.direction.has_bytes());
    model.direction.reopen();
    assert_eq!(model.write(5), 5);
    model.read(5, 0);
}

#[test]
fn whoever_was_overtaken_notices() {
    let direction = Direction::new(64);
    // A signal handler came between the look and the publication.
    let span = direction.writable(&mut 0, 10).unwrap();
    direction.publish(span.position, 3).unwrap();
    assert_eq!(direction.publish(span.position, 10), Err(NotPublished::Moved));
    let span = direction.readable().unwrap();
    assert!(direction.consume(&span, 1));
    assert!(!direction.consume(&span, 3));
}

#[test]
fn a_need_wakeup_flag_is_answered_once() {
    let direction = Direction::new(64);
    assert!(!direction.doorbell_due());
    direction.want_doorbell();
    direction.want_doorbell();
    assert!(direction.doorbell_due());
    assert!(!direction.doorbell_due());
    direction.want_doorbell();
    direction.unwant_doorbell();
    assert!(!direction.doorbell_due());
}
