//! Models of the ring, of sleeping and waking, and of the lanes, for the model checker loom. The command is
//! in the crate's documentation.
//!
//! loom runs each model under every interleaving (with at most `LOOM_MAX_PREEMPTIONS` preemptions) and every
//! value that the memory model lets a load see. A model fails when an assertion does, when two threads touch
//! a byte of the ring without an order between them, or when all threads sleep: a lost wake-up.
//!
//! That the models can fail was tried. Each of these changes makes loom report a failure:
//!
//! | change | model that fails |
//! |---|---|
//! | `publish` without its full barrier, or `want_doorbell` without its own | `a_sleeper_is_woken` |
//! | `publish` or `consume` with a relaxed compare-and-swap | `bytes_arrive_once_and_in_order` |
//! | `release` with a relaxed compare-and-swap | `room_comes_back_by_the_quarter` |
//! | no second look before sleeping | `a_sleeper_is_woken` |
//! | `await_room` without its second look, or a relaxed `swap` in it | `a_writer_that_sleeps_for_room_is_woken` |
//! | doorbells younger than the look are thrown away, too | `a_look_takes_no_doorbell_from_a_sleeper` |
//! | the need-wakeup flag of a sleeper is not given back with the doorbell | `a_look_takes_no_doorbell_from_a_sleeper` |
//! | the same on the way from the ring to the kernel | `a_sleeper_outlives_a_ring_epoch` |
//! | `open` although a reader is BUSY | `lanes_keep_the_order` |
//! | the reader follows before it has thrown the doorbells away | `lanes_keep_the_order` |
//! | `ready` is not looked at after `reopen` | `nothing_is_published_after_the_close` |
//! | the reader closes without taking its promise back | `nothing_is_published_after_the_close` |
//! | the end becomes ready although a plain read is inside | `a_plain_read_meets_no_doorbell` |
//! | the ring opens although a plain write is inside | `a_plain_write_keeps_its_place` |
//! | a thread that recovers the lock of a dead writer does not renew the need-wakeup flag | `a_doorbell_that_the_dead_owed_is_rung` |
//! | a doorbell that was refused counts as rung | `a_doorbell_that_was_refused_is_rung_again` |
//! | a doorbell is sent without a look at the lock | `a_writer_stopped_on_the_ring_sends_no_doorbell_into_the_data` |
//! | the gate is not shut | `a_writer_stopped_while_it_opens_the_ring_changes_nothing` |
//! | `spill` stores `resume` without a look at what is there | `a_writer_stopped_while_it_spills_changes_nothing` |
//! | a need-wakeup flag without the read lock | `a_waiter_takes_no_flag_from_a_sleeper` |
//! | a doorbell takes the flag for a futex wake with it | `a_timed_waiter_and_a_sleeper_share_an_end` |
//! | `spill`, or whoever closes the ring, ends no timed wait | `no_timed_wait_when_the_ring_is_left`, `no_timed_wait_on_a_closed_ring` |
//! | a wait on two rings looks at them before it has said so | `who_waits_on_two_rings_is_woken_by_either` |
//! | a wait on two rings does not look for a close after its need-wakeup flags | `no_timed_wait_on_two_rings_of_which_one_is_closed` |
//! | `declare` without its full barrier | `a_plain_new_owner_gets_what_was_unread` |
//! | a writer goes to sleep without a look at what is asked | `a_plain_new_owner_gets_what_was_unread_from_a_writer_in_the_kernels_lane` |
//! | the ring is closed after the bytes were put down | all that hand an end on |
//! | an owner that gives a lock back does not look for marks | `who_waits_for_a_lock_is_woken` |
//! | a thread that has slept takes a lock without a mark for the others | `who_waits_for_a_lock_is_woken` |
//! | the need-wakeup flag for a doorbell is not taken back before, or a doorbell is counted after its need-wakeup flag was taken | `a_plain_new_owner_after_a_sleeper_gets_what_was_unread` |

#![cfg(loom)]

mod model;

use loom::model::Builder;
use loom::thread;
use model::handed::Connection;
use model::turns::Turns;
use model::{Direct, End};
use sockshim_ring::ring::Seen;
use sockshim_ring::sync::{AtomicU32, Ordering};
use std::sync::Arc;

#[test]
fn bytes_arrive_once_and_in_order() {
    loom::model(|| {
        let end = End::on_ring();
        let writer = end.clone();
        let writing = thread::spawn(move || {
            let mut seen_head = 0;
            for piece in [&b"ab"[..], b"c", b"de"] {
                let mut done = 0;
                while done < piece.len() {
                    match writer.push(&mut seen_head, &piece[done..]) {
                        Direct::Published(count) => done += count,
                        Direct::Full => thread::yield_now(),
                        Direct::Closed => unreachable!("nobody closes this ring"),
                    }
                }
            }
        });
        let mut got = Vec::new();
        while got.len() < 5 {
            let before = got.len();
            end.pull(&mut got, 2);
            if got.len() == before {
                thread::yield_now();
            }
        }
        assert_eq!(got, b"abcde");
        writing.join().unwrap();
        assert!(!end.direction.has_bytes());
    });
}

/// A quarter of this ring is two bytes: room comes back later than the bytes are taken.
#[test]
fn room_comes_back_by_the_quarter() {
    loom::model(|| {
        let end = End::on_ring_of(8);
        let writer = end.clone();
        let writing = thread::spawn(move || {
            let mut seen_head = 0;
            let bytes: Vec<u8> = (0..11).collect();
            let mut done = 0;
            while done < bytes.len() {
                match writer.push(&mut seen_head, &bytes[done..]) {
                    Direct::Published(count) => done += count,
                    Direct::Full => thread::yield_now(),
                    Direct::Closed => unreachable!("nobody closes this ring"),
                }
            }
        });
        let mut got = Vec::new();
        let mut seen = Seen::default();
        while got.len() < 11 {
            let before = got.len();
            end.pull_from(&mut seen, &mut got, 3);
            if got.len() == before {
                thread::yield_now();
            }
        }
        assert_eq!(got, (0..11).collect::<Vec<u8>>());
        writing.join().unwrap();
    });
}

#[test]
fn a_sleeper_is_woken() {
    loom::model(|| {
        let end = End::on_ring();
        let writer = end.clone();
        let writing = thread::spawn(move || {
            for byte in b"ab" {
                writer.write(*byte);
            }
        });
        let mut got = Vec::new();
        end.receive(2, &mut got);
        assert_eq!(got, b"ab");
        writing.join().unwrap();
    });
}

#[test]
fn a_writer_that_sleeps_for_room_is_woken() {
    loom::model(|| {
        let (there, back) = (End::on_ring_of(2), End::on_ring());
        let (out, own) = (there.clone(), back.clone());
        let writing = thread::spawn(move || {
            let mut seen_head = 0;
            for byte in b"abc" {
                while out.push(&mut seen_head, &[*byte]) == Direct::Full {
                    out.sleep_for_room(&own);
                }
            }
        });
        let mut got = Vec::new();
        while got.len() < 3 {
            let before = got.len();
            there.pull(&mut got, 2);
            there.tell_of_room(&back);
            if got.len() == before {
                thread::yield_now();
            }
        }
        assert_eq!(got, b"abc");
        writing.join().unwrap();
    });
}

#[test]
fn a_timed_waiter_is_woken() {
    loom::model(|| {
        let end = End::on_ring();
        let writer = end.clone();
        let writing = thread::spawn(move || {
            for byte in b"ab" {
                writer.write(*byte);
            }
        });
        let mut got = Vec::new();
        end.receive_with_timed_waits(2, &mut got);
        assert_eq!(got, b"ab");
        writing.join().unwrap();
    });
}

#[test]
fn a_timed_waiter_and_a_sleeper_share_an_end() {
    model_of_three(|| {
        let end = End::on_ring();
        let timed_waiter = end.clone();
        let waiting = thread::spawn(move || timed_waiter.receive_with_timed_waits(1, &mut Vec::new()));
        let sleeper = end.clone();
        let sleeping = thread::spawn(move || sleeper.receive(1, &mut Vec::new()));
        for byte in b"ab" {
            end.write(*byte);
        }
        waiting.join().unwrap();
        sleeping.join().unwrap();
    });
}

#[test]
fn who_waits_on_two_rings_is_woken_by_either() {
    model_of_three(|| {
        let ends = End::two_on_rings();
        let writing = ends.clone().map(|end| thread::spawn(move || assert!(end.write(b'x'))));
        let mut got = [Vec::new(), Vec::new()];
        while got.iter().any(Vec::is_empty) {
            for (end, got) in ends.iter().zip(&mut got) {
                end.pull(got, 1);
            }
            if got.iter().any(Vec::is_empty) {
                assert!(End::timed_wait_on_both(&ends));
                thread::yield_now();
            }
        }
        writing.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

#[test]
fn no_timed_wait_on_two_rings_of_which_one_is_closed() {
    loom::model(|| {
        let ends = End::two_on_rings();
        let closer = ends[1].clone();
        let closing = thread::spawn(move || closer.close());
        while End::timed_wait_on_both(&ends) {
            thread::yield_now();
        }
        closing.join().unwrap();
    });
}

/// What comes by the kernel lane is no concern of a futex.
#[test]
fn no_timed_wait_when_the_ring_is_left() {
    loom::model(|| {
        let end = End::on_ring();
        let writer = end.clone();
        let writing = thread::spawn(move || {
            writer.go_to_kernel();
            writer.write_in_kernel(b'a');
        });
        let mut got = Vec::new();
        end.receive_with_timed_waits(1, &mut got);
        assert_eq!(got, b"a");
        writing.join().unwrap();
    });
}

#[test]
fn no_timed_wait_on_a_closed_ring() {
    loom::model(|| {
        let end = End::on_ring();
        let closer = end.clone();
        let closing = thread::spawn(move || closer.close());
        // Returns when the reader is to go to sleep in the kernel.
        end.timed_wait_until_closed();
        closing.join().unwrap();
    });
}

#[test]
fn two_sleepers_share_an_end() {
    loom::model(|| {
        let end = End::on_ring();
        let readers = [(), ()].map(|()| {
            let reader = end.clone();
            thread::spawn(move || reader.receive(1, &mut Vec::new()))
        });
        for byte in b"ab" {
            end.write(*byte);
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A reader that does not wait takes a stale doorbell away while another one, past its own settling, goes to sleep.
#[test]
fn a_look_takes_no_doorbell_from_a_sleeper() {
    loom::model(|| {
        let end = End::on_ring();
        end.direction.want_doorbell();
        end.write(b'a');
        end.take(1);
        let sleeper = end.clone();
        let sleeping = thread::spawn(move || {
            sleeper.doze(1);
            sleeper.receive(1, &mut Vec::new());
        });
        let looker = end.clone();
        let looking = thread::spawn(move || {
            looker.settle();
            looker.take(1);
            looker.settle();
        });
        end.write(b'b');
        end.write(b'c');
        looking.join().unwrap();
        sleeping.join().unwrap();
    });
}

/// The same, with the doorbell thrown away on the way from the ring to the kernel.
#[test]
fn a_sleeper_outlives_a_ring_epoch() {
    loom::model(|| {
        let end = End::on_ring();
        end.direction.want_doorbell();
        let sleeper = end.clone();
        let sleeping = thread::spawn(move || sleeper.receive(1, &mut Vec::new()));
        let looker = end.clone();
        let looking = thread::spawn(move || {
            looker.take(1);
            looker.take(1);
        });
        end.write(b'a');
        end.go_to_kernel();
        end.write_in_kernel(b'b');
        end.write(b'c');
        looking.join().unwrap();
        sleeping.join().unwrap();
    });
}

#[test]
fn lanes_keep_the_order() {
    loom::model(|| {
        let end = End::on_kernel();
        let writer = end.clone();
        let writing = thread::spawn(move || {
            writer.write(b'a');
            writer.write(b'b');
            writer.go_to_kernel();
            writer.write(b'c');
        });
        let mut got = Vec::new();
        end.receive(3, &mut got);
        assert_eq!(got, b"abc");
        writing.join().unwrap();
        end.assert_only_doorbells_left();
    });
}

/// Starts in a ring epoch with a doorbell in the kernel's queue, so that the way back and the next opening are
/// within reach of the preemption bound.
#[test]
fn lanes_keep_the_order_on_the_way_back() {
    loom::model(|| {
        let end = End::on_ring();
        end.direction.want_doorbell();
        end.write(b'a');
        let writer = end.clone();
        let writing = thread::spawn(move || {
            writer.go_to_kernel();
            writer.write_in_kernel(b'b');
            writer.write(b'c');
        });
        let mut got = Vec::new();
        end.receive(3, &mut got);
        assert_eq!(got, b"abc");
        writing.join().unwrap();
        end.assert_only_doorbells_left();
    });
}

/// The reader takes its promise back, closes the ring, and reads what it holds.
#[test]
fn a_closed_ring_loses_nothing() {
    loom::model(|| {
        let end = End::on_kernel();
        let writer = end.clone();
        let writing = thread::spawn(move || {
            writer.write(b'a');
            writer.write(b'b');
        });
        end.close();
        let mut got = Vec::new();
        end.receive(2, &mut got);
        assert_eq!(got, b"ab");
        writing.join().unwrap();
    });
}

/// Whoever closed the ring and found it empty may leave: the writer notices, and uses the kernel.
#[test]
fn nothing_is_published_after_the_close() {
    loom::model(|| {
        let end = End::on_kernel();
        let published = std::sync::Arc::new(AtomicU32::new(0));
        let (writer, count) = (end.clone(), published.clone());
        let writing = thread::spawn(move || {
            for byte in b"ab" {
                if writer.write(*byte) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        end.close();
        let final_tail = end.tail();
        writing.join().unwrap();
        assert_eq!(end.tail(), final_tail);
        assert_eq!(u64::from(published.load(Ordering::Relaxed)), final_tail);
    });
}

/// Models with three threads and many steps: two preemptions are what can be explored in a minute.
fn model_of_three(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.map_or(2, |bound| bound.min(2)));
    builder.check(body);
}

/// Threads that take turns by a lock on which they sleep.
fn taking_turns(threads: u32, turns: u32, impatient: bool) {
    model_of_three(move || {
        let lock = Turns::new();
        let all: Vec<_> = (2..=threads)
            .map(|me| {
                let lock = lock.clone();
                thread::spawn(move || (0..turns).for_each(|_| lock.take_turn(me, impatient)))
            })
            .collect();
        (0..turns).for_each(|_| lock.take_turn(1, impatient));
        all.into_iter().for_each(|each| each.join().unwrap());
        assert_eq!(lock.counted(), threads * turns);
    });
}

#[test]
fn who_waits_for_a_lock_is_woken() {
    taking_turns(2, 2, false);
    taking_turns(3, 1, false);
}

#[test]
fn a_lock_that_is_kept_for_who_has_starved_is_taken() {
    taking_turns(2, 2, true);
    taking_turns(3, 1, true);
}

/// The upgrade: a thread that is in the kernel's `recv` already, and one that makes the end ready.
#[test]
fn a_plain_read_meets_no_doorbell() {
    model_of_three(|| {
        let end = End::plain();
        let plain = end.clone();
        let reading = thread::spawn(move || plain.receive_plainly());
        let writer = end.clone();
        let writing = thread::spawn(move || {
            writer.write(b'a');
            writer.write(b'b');
        });
        while !end.become_ready() {
            thread::yield_now();
        }
        let mut got = Vec::new();
        end.receive(1, &mut got);
        got.push(reading.join().unwrap());
        writing.join().unwrap();
        got.sort_unstable();
        assert_eq!(got, b"ab");
    });
}

/// The upgrade again: a write that is inside the kernel has its place before the ring.
#[test]
fn a_plain_write_keeps_its_place() {
    model_of_three(|| {
        let end = End::on_kernel();
        let writers = [(b'a', false), (b'b', true)].map(|(byte, into_ring)| {
            let end = end.clone();
            thread::spawn(move || end.write_beside_others(byte, into_ring))
        });
        let mut got = Vec::new();
        end.receive(2, &mut got);
        got.sort_unstable();
        assert_eq!(got, b"ab");
        for writer in writers {
            writer.join().unwrap();
        }
        end.assert_only_doorbells_left();
    });
}

/// The kernel refuses a doorbell, or two, for want of room or memory. A sleeper is woken all the same.
#[test]
fn a_doorbell_that_was_refused_is_rung_again() {
    for refused in [1, 2] {
        loom::model(move || {
            let end = End::on_ring();
            end.refuse_doorbells(refused);
            let reader = end.clone();
            let reading = thread::spawn(move || {
                let mut got = Vec::new();
                reader.receive(2, &mut got);
                got
            });
            end.write(b'a');
            end.write(b'b');
            assert_eq!(reading.join().unwrap(), b"ab");
            end.assert_only_doorbells_left();
        });
    }
}

/// A writer is killed between taking the need-wakeup flag and sending the doorbell; the next one of its end makes up for it.
#[test]
fn a_doorbell_that_the_dead_owed_is_rung() {
    loom::model(|| {
        let end = End::on_ring();
        let reader = end.clone();
        let reading = thread::spawn(move || {
            let mut got = Vec::new();
            reader.receive(2, &mut got);
            got
        });
        end.write_and_die_ringing(1, b'a');
        end.write_after_the_dead(2, b'b');
        assert_eq!(reading.join().unwrap(), b"ab");
    });
}

/// A writer is stopped after any of its steps, fenced off, and goes on.
fn fenced_off(end: &Arc<End>) {
    end.lock_writes(1);
    let stopped = end.clone();
    let writing = thread::spawn(move || stopped.write_in_steps(1, b'a'));
    end.write_around(2, b'b');
    writing.join().unwrap();
    let mut got = Vec::new();
    end.receive(2, &mut got);
    got.sort_unstable();
    assert_eq!(got, b"ab");
    end.assert_only_doorbells_left();
}

#[test]
fn a_writer_stopped_on_the_ring_sends_no_doorbell_into_the_data() {
    loom::model(|| {
        let end = End::on_ring();
        end.direction.want_doorbell();
        fenced_off(&end);
    });
}

#[test]
fn a_writer_stopped_while_it_opens_the_ring_changes_nothing() {
    loom::model(|| fenced_off(&End::on_kernel()));
}

#[test]
fn a_writer_stopped_while_it_spills_changes_nothing() {
    loom::model(|| {
        let end = End::on_ring();
        // A doorbell is in the stream, so that where the kernel's lane goes on is not where it began.
        end.direction.want_doorbell();
        end.write(b'0');
        end.receive(1, &mut Vec::new());
        end.direction.close();
        fenced_off(&end);
    });
}

/// An epoll set that stays awake takes its need-wakeup flag back, and another thread goes to sleep on the same connection.
#[test]
fn a_waiter_takes_no_flag_from_a_sleeper() {
    loom::model(|| {
        let end = End::on_ring();
        end.direction.want_doorbell();
        end.write(b'a');
        let sleeper = end.clone();
        let sleeping = thread::spawn(move || sleeper.receive(2, &mut Vec::new()));
        let waiter = end.clone();
        let waiting = thread::spawn(move || waiter.wait_in_a_set());
        end.write(b'b');
        sleeping.join().unwrap();
        // The set's own wait ends with whatever comes.
        end.write_in_kernel(b'c');
        waiting.join().unwrap();
    });
}

/// An end is handed on with bytes unread, whose writer then waits for an answer. What the new owner reads.
fn handed_on(connection: &Arc<Connection>, read: fn(&Connection) -> Vec<u8>) {
    let peer = connection.clone();
    let writing = thread::spawn(move || {
        peer.write(b'a');
        peer.write(b'b');
        assert_eq!(peer.read(), b'z');
    });
    connection.announce();
    connection.hand_over();
    assert_eq!(read(connection), b"ab");
    connection.answer(b'z');
    writing.join().unwrap();
}

#[test]
fn a_plain_new_owner_gets_what_was_unread() {
    loom::model(|| handed_on(&Connection::on_ring(), |new_owner| new_owner.read_plainly(2)));
}

/// The ring in which the writer is woken opens for that.
#[test]
fn a_plain_new_owner_gets_what_was_unread_from_a_writer_in_the_kernels_lane() {
    loom::model(|| handed_on(&Connection::one_way(), |new_owner| new_owner.read_plainly(2)));
}

/// A doorbell is about to be rung when the ring is closed.
#[test]
fn a_plain_new_owner_after_a_sleeper_gets_what_was_unread() {
    loom::model(|| {
        let connection = Connection::on_ring();
        connection.want_doorbell();
        handed_on(&connection, |new_owner| new_owner.read_plainly(2));
    });
}

#[test]
fn a_new_owner_with_the_file_gets_what_was_unread() {
    loom::model(|| handed_on(&Connection::on_ring(), |new_owner| new_owner.read_with_file(2)));
}

/// A writer that ends its direction sends again what lies in the file, or will lie there.
#[test]
fn what_was_unread_is_given_back_before_the_end() {
    loom::model(|| {
        let connection = Connection::on_ring();
        connection.write(b'a');
        connection.announce();
        let peer = connection.clone();
        let writing = thread::spawn(move || {
            peer.write(b'b');
            peer.end();
        });
        connection.hand_over();
        writing.join().unwrap();
        assert_eq!(connection.read_plainly(2), b"ab");
    });
}

/// The new program did not come, while the writer may be answering.
#[test]
fn what_was_unread_can_be_taken_back() {
    loom::model(|| {
        let connection = Connection::on_ring();
        handed_on(&connection, |own| own.take_back(2));
        connection.assert_nothing_is_asked();
    });
}
