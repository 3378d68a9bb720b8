//! Window scale, timestamps, PAWS, path MTU.

use crate::util::{Host, MSS, Seg, ack, seg, syn_options};
use sockshim_tcpip::wire::tcp::{Flags, Options, Timestamps};

fn with_stamps(value: u32) -> Options {
    Options { timestamps: Some(Timestamps { value, echo: 0 }), ..syn_options() }
}

#[test]
fn options_that_the_other_end_lacks_are_not_used() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(seg(Flags::SYN, 0, 0));
    let answer = host.expect_flags(Flags::SYN | Flags::ACK);
    assert_eq!(answer.options, Options { mss: Some(MSS), ..Options::default() });
}

#[test]
fn options_that_it_has_are_answered() {
    let mut host = Host::new();
    host.listen(1);
    host.receive(Seg { options: with_stamps(77), ..seg(Flags::SYN, 0, 0) });
    let answer = host.expect_flags(Flags::SYN | Flags::ACK).options;
    assert!(answer.sack_permitted && answer.window_scale.is_some());
    assert_eq!(answer.timestamps.unwrap().echo, 77);
}

#[test]
fn the_window_is_scaled_after_the_handshake() {
    let mut options = syn_options();
    options.window_scale = Some(2);
    let mut host = Host::new();
    host.window = 500;
    let (mut host, id) = host.accept_with(options);
    host.send(id, 5000);
    assert_eq!(host.drain().len(), 2, "500 << 2 bytes");
}

#[test]
fn an_old_timestamp_is_an_old_duplicate() {
    let (mut host, id) = Host::new().accept_with(with_stamps(1000));
    host.receive(ack(1, 1).data(10).stamps(1001, 0));
    host.drain();
    host.receive(ack(11, 1).data(10).stamps(900, 0));
    host.expect_ack(11); // RFC 7323 section 5.3 R1: acknowledged and dropped
    assert_eq!(host.read(id).len(), 10);
    assert_eq!(host.stack.counters().paws_estab_rejected, 1);
}

#[test]
fn what_was_sent_before_the_retransmission_that_fills_a_hole_is_late_and_not_old() {
    let (mut host, id) = Host::new().accept_with(with_stamps(1000));
    host.receive(ack(1, 1).data(10).stamps(1000, 0));
    host.receive(ack(31, 1).data(10).stamps(1003, 0));
    // 11..21 was lost and is sent again; 21..31 was sent before that, and arrives after it.
    host.receive(ack(11, 1).data(10).stamps(1050, 0));
    host.receive(ack(21, 1).data(10).stamps(1002, 0));
    assert_eq!(host.read(id).len(), 40);
    assert_eq!(host.stack.counters().paws_estab_rejected, 0);
    // An old duplicate is one all the same, also beyond a hole.
    host.receive(ack(51, 1).data(10).stamps(998, 0));
    assert_eq!(host.stack.counters().paws_estab_rejected, 1);
    // As soon as something has arrived in order that was sent later, nothing from before it can be new.
    host.receive(ack(41, 1).data(10).stamps(1060, 0));
    host.receive(ack(51, 1).data(10).stamps(1055, 0));
    assert_eq!(host.read(id).len(), 10);
    assert_eq!(host.stack.counters().paws_estab_rejected, 2);
}

#[test]
fn a_reset_needs_no_timestamp_that_is_new() {
    let (mut host, id) = Host::new().accept_with(with_stamps(1000));
    host.receive(seg(Flags::RST, 1, 0).stamps(900, 0));
    host.expect_state(id, sockshim_tcpip::tcp::State::Closed);
}

#[test]
fn the_echo_is_that_of_the_last_segment_in_order() {
    let (mut host, _) = Host::new().accept_with(with_stamps(1000));
    host.receive(ack(11, 1).data(10).stamps(1005, 0));
    assert_eq!(host.expect_ack(1).options.timestamps.unwrap().echo, 1000, "RFC 7323 section 4.3 (B)");
    host.receive(ack(1, 1).data(10).stamps(1003, 0));
    assert_eq!(host.expect_ack(21).options.timestamps.unwrap().echo, 1003);
}

#[test]
fn a_segment_without_timestamp_is_taken_all_the_same() {
    // gVisor dropped acknowledgements without one (its issue 11536); RFC 7323 section 3.2 says SHOULD, Linux takes them.
    let (mut host, id) = Host::new().accept_with(with_stamps(1000));
    host.receive(ack(1, 1).data(10));
    assert_eq!(host.read(id).len(), 10);
}

#[test]
fn the_round_trip_time_is_that_of_the_acknowledged_data() {
    let (mut host, id) = Host::established();
    host.send(id, 100);
    host.drain();
    host.wait_ms(80);
    host.receive(ack(1, 101));
    let rtt = host.info(id).rtt;
    assert!((5_000..=80_000).contains(&rtt), "{rtt}");
}

#[test]
fn a_syn_with_ecn_flags_is_answered() {
    // gVisor reset it (its issue 7075).
    let mut host = Host::new();
    host.listen(1);
    host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ECE | Flags::CWR, 0, 0) });
    host.expect_flags(Flags::SYN | Flags::ACK | Flags::ECE);
}

#[test]
fn a_receive_buffer_that_was_set_decides_by_how_much_windows_are_shifted() {
    for (size, shift) in [(30_000, 0), (65_535, 0), (65_536, 1), (1 << 20, 5)] {
        let mut host = Host::new();
        let listener = host.listen(1);
        host.stack.set_listener_options(listener, |options| options.receive_buffer = Some(size)).unwrap();
        let mut options = syn_options();
        options.window_scale = Some(3);
        host.receive(Seg { options, ..seg(Flags::SYN, 0, 0) });
        let answer = host.expect_flags(Flags::SYN | Flags::ACK);
        assert_eq!(answer.options.window_scale, Some(shift), "{size}");
        // A shift of zero says that the other end may have one.
        host.receive(ack(1, 1).window(1000));
        let (id, _) = host.stack.accept(host.now, listener).unwrap();
        let info = host.info(id);
        assert_eq!((info.snd_wscale, info.rcv_wscale), (3, shift));
        assert_ne!(info.options & 4, 0, "TCPI_OPT_WSCALE");
        host.send(id, 8000);
        assert_eq!(host.drain().len(), 8, "1000 << 3 bytes");

        let mut socket = host.stack.socket_options();
        socket.receive_buffer = Some(size);
        let options = sockshim_tcpip::stack::ConnectOptions { local: None, socket: Some(socket) };
        host.remote.set_port(443);
        let id = host.stack.connect(host.now, host.remote, options).unwrap();
        host.local_port = host.stack.addresses(id).unwrap().0.port();
        let syn = host.expect_flags(Flags::SYN);
        assert_eq!(syn.options.window_scale, Some(shift));
        let options = Options { window_scale: Some(2), ..syn_options() };
        host.receive(Seg { options, ..seg(Flags::SYN | Flags::ACK, 0, 1) });
        let info = host.info(id);
        assert_eq!((info.snd_wscale, info.rcv_wscale), (2, shift));
    }
}
