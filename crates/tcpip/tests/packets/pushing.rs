//! What the flags of writes, TCP_CORK and TCP_NODELAY do to segments, and where PSH is set.

use crate::util::{Host, Seg, ack};
use sockshim_tcpip::stack::SocketId;
use sockshim_tcpip::tcp::SendFlags;
use sockshim_tcpip::wire::tcp::Flags;

const MORE: SendFlags = SendFlags { more: true, end_of_record: false, urgent: false };
const END_OF_RECORD: SendFlags = SendFlags { more: false, end_of_record: true, urgent: false };

fn send_with(host: &mut Host, id: SocketId, len: usize, flags: SendFlags) {
    let data = vec![b'd'; len];
    assert_eq!(host.call(|stack, now| stack.send_with(now, id, &data, flags)), Ok(len));
}

/// Numbers and lengths of data, and whether it is pushed.
fn shapes(segments: &[Seg]) -> Vec<(u32, usize, bool)> {
    segments.iter().map(|it| (it.seq, it.data.len(), it.flags.contains(Flags::PSH))).collect()
}

#[test]
fn the_end_of_a_write_is_pushed_and_nothing_before_it() {
    let (mut host, id) = Host::established();
    host.send(id, 2500);
    host.receive(ack(1, 1001));
    assert_eq!(shapes(&host.drain()), [(1, 1000, false), (1001, 1000, false), (2001, 500, true)]);
}

#[test]
fn a_write_with_more_to_follow_waits_and_is_not_pushed() {
    let (mut host, id) = Host::established();
    host.call(|stack, now| stack.set_options(now, id, |options| options.nodelay = true)).unwrap();
    send_with(&mut host, id, 1500, MORE);
    assert_eq!(shapes(&host.drain()), [(1, 1000, false)], "whole segments leave");
    // Only until something else happens, as in Linux.
    host.receive(ack(1, 1001));
    assert_eq!(shapes(&host.drain()), [(1001, 500, false)]);
}

#[test]
fn a_write_without_more_releases_what_waits() {
    let (mut host, id) = Host::established();
    send_with(&mut host, id, 100, MORE);
    host.expect_nothing();
    host.send(id, 5);
    assert_eq!(shapes(&host.drain()), [(1, 105, true)]);
}

#[test]
fn what_waits_for_more_that_never_comes_leaves_when_the_timer_runs_out() {
    let (mut host, id) = Host::established();
    host.send(id, 1000);
    host.expect_data(1, 1000);
    host.wait_ms(50);
    host.receive(ack(1, 1001));
    send_with(&mut host, id, 40, MORE);
    host.wait_ms(240);
    host.expect_nothing();
    host.wait_ms(20);
    let segment = host.expect_flags(Flags::ACK | Flags::PSH);
    assert_eq!((segment.seq, segment.data.len()), (1001, 40));
}

#[test]
fn setting_nodelay_again_pushes_what_cork_holds_but_not_what_comes_later() {
    let (mut host, id) = Host::established();
    let cork =
        |options: &mut sockshim_tcpip::tcp::SocketOptions| (options.nodelay, options.cork) = (true, true);
    host.call(|stack, now| stack.set_options(now, id, cork)).unwrap();
    host.send(id, 40);
    host.expect_nothing();
    host.call(|stack, now| stack.push(now, id));
    assert_eq!(shapes(&host.drain()), [(1, 40, true)]);
    host.send(id, 40);
    host.expect_nothing();
}

#[test]
fn no_segment_crosses_the_end_of_a_record() {
    let (mut host, id) = Host::established();
    send_with(&mut host, id, 400, END_OF_RECORD);
    send_with(&mut host, id, 1400, END_OF_RECORD);
    host.send(id, 300);
    host.receive(ack(1, 401));
    host.receive(ack(1, 1801));
    let expected = [(1, 400, true), (401, 1000, false), (1401, 400, true), (1801, 300, true)];
    assert_eq!(shapes(&host.drain()), expected);
}

#[test]
fn what_is_sent_again_keeps_its_records_and_its_push() {
    let (mut host, id) = Host::established();
    for _ in 0..2 {
        send_with(&mut host, id, 400, END_OF_RECORD);
    }
    assert_eq!(host.drain().len(), 1);
    host.receive(ack(1, 401));
    host.send(id, 1000);
    let sent = shapes(&host.drain());
    assert_eq!(sent, [(401, 400, true), (801, 1000, true)]);
    let segment = ack(1, 401).sack(&host, &[(801, 1801)]);
    host.receive(segment);
    host.wait_ms(1000);
    assert_eq!(shapes(&host.drain())[0], (401, 400, true));
}
