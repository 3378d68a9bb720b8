//! Any words in a direction's fields: every look stays within the ring. `fuzz/` calls this from libFuzzer, the tests of
//! [`crate::ring`] from `cargo test`.

use crate::epoch::is_ring;
use crate::layout::{Direction, MAX_CAPACITY};
use crate::ring::{Seen, Span};
use crate::sync::Ordering;

/// Changes the fields of a direction and calls its functions, as the bytes say.
pub fn direction_words(bytes: &[u8]) {
    let direction = Direction::new(64);
    let mut seen_head = 0;
    let mut seen = Seen::default();
    for step in bytes.chunks_exact(9) {
        let value = u64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8].map(|at: usize| step[at]));
        let (length, half) = (value as u16 as usize, value as u32);
        let Direction { producer, consumer, sleep, switch, reader, room } = &direction;
        match step[0] % 26 {
            0 => producer.tail.store(value, Ordering::Relaxed),
            1 => producer.capacity.store(half, Ordering::Relaxed),
            2 => consumer.head.store(value, Ordering::Relaxed),
            3 => sleep.asleep.store(half, Ordering::Relaxed),
            4 => switch.gate.store(half, Ordering::Relaxed),
            5 => switch.doorbells.store(value, Ordering::Relaxed),
            6 => switch.kernel_end.store(value, Ordering::Relaxed),
            7 => switch.resume.store(value, Ordering::Relaxed),
            8 => reader.ready.store(half, Ordering::Relaxed),
            9 => reader.epoch.store(half, Ordering::Relaxed),
            10 => reader.doorbells_past.store(value, Ordering::Relaxed),
            11 => producer.capacity.store(1 << (value % 22), Ordering::Relaxed),
            12 => consumer
                .head
                .store(producer.tail.load(Ordering::Relaxed).wrapping_sub(value % 70), Ordering::Relaxed),
            13 => {
                if let Ok(span) = direction.writable(&mut seen_head, length) {
                    check(span, length);
                    let _ = direction.publish(span.position, length.min(span.length));
                }
            }
            14 => match direction.readable() {
                Ok(span) => {
                    check(span, length);
                    assert_eq!(span.length > 0, direction.has_bytes());
                    let _ = direction.consume(&span, length.min(span.length));
                }
                Err(_) => assert!(
                    direction.has_bytes()
                        || producer.capacity.load(Ordering::Relaxed) > MAX_CAPACITY
                        || !producer.capacity.load(Ordering::Relaxed).is_power_of_two()
                ),
            },
            15 => drop(direction.lead(direction.reader_epoch()).map(|lead| assert!(lead <= 2))),
            16 => drop(direction.open(direction.epoch(), value)),
            17 => direction.spill(direction.epoch(), value, value),
            18 => {
                if direction.enter_kernel(direction.epoch()) {
                    direction.leave_kernel();
                }
            }
            19 => direction.follow(direction.reader_epoch()),
            20 => drop((direction.doorbell_due(), is_ring(direction.epoch()))),
            21 => direction.want_doorbell(),
            22 => direction.close(),
            23 => room.released.store(value, Ordering::Relaxed),
            24 => {
                if let Ok(span) = direction.readable_from(&mut seen, length) {
                    check(span, length);
                    let _ = direction.consume(&span, length.min(span.length));
                }
            }
            _ => direction.reopen(),
        }
    }
}

/// Whatever is asked of a span, it gives pieces within the ring.
fn check(span: Span, length: usize) {
    assert!(span.capacity <= MAX_CAPACITY && span.length <= span.capacity as usize);
    for skip in [0, length] {
        let pieces = span.pieces(skip, length);
        assert!(pieces.iter().all(|(offset, length)| offset + length <= span.capacity as usize));
        if skip + length <= span.length {
            assert_eq!(pieces[0].1 + pieces[1].1, length);
        }
    }
}
