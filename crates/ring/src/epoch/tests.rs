use super::{BUSY, is_ring};
use crate::layout::Direction;
use crate::sync::Ordering;

#[test]
fn a_busy_reader_keeps_the_ring_shut() {
    let direction = Direction::new(64);
    assert!(direction.enter_kernel(0));
    assert!(!direction.enter_kernel(0));
    assert!(!direction.open(0, 10));
    assert_eq!(direction.epoch(), 0);
    direction.leave_kernel();
    assert!(direction.open(0, 10));
    assert_eq!(direction.epoch(), 1);
    assert!(!direction.enter_kernel(0));
}

#[test]
fn the_writer_leads_and_the_reader_follows() {
    let direction = Direction::new(64);
    assert!(direction.open(0, 10));
    assert!(is_ring(direction.epoch()));
    assert_eq!(direction.reader_epoch(), 0);
    direction.spill(1, 20, 13);
    assert_eq!(direction.epoch(), 2);
    direction.follow(0);
    direction.follow(1);
    assert_eq!(direction.reader_epoch(), 2);
    assert!(direction.open(2, 30));
    assert_eq!(direction.switch.kernel_end.load(Ordering::Relaxed), 30);
}

#[test]
fn epochs_wrap_around_together() {
    let direction = Direction::new(64);
    let last = (u32::MAX >> 2) - 1;
    direction.switch.gate.store(last << 1, Ordering::Relaxed);
    direction.reader.epoch.store(last, Ordering::Relaxed);
    for epoch in [last, last + 1, 0] {
        assert_eq!((direction.epoch(), direction.reader_epoch()), (epoch, epoch));
        if is_ring(epoch) {
            direction.spill(epoch, 0, 0);
        } else {
            assert!(direction.open(epoch, 0));
        }
        assert_eq!(direction.switch.gate.load(Ordering::Relaxed) & BUSY, 0);
        direction.follow(epoch);
    }
    assert_eq!(direction.reader_epoch(), 1);
}
