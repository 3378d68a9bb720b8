//! Explicit congestion notification (RFC 3168).

use crate::util::{Host, Seg, ack, seg, syn_options};
use sockshim_tcpip::stack::SocketId;
use sockshim_tcpip::tcp::ecn::Ecn;
use sockshim_tcpip::wire::tcp::Flags;

const CAPABLE: u8 = 2;
const EXPERIENCED: u8 = 3;

fn asking(flags: Flags) -> Seg {
    Seg { options: syn_options(), ..seg(Flags::SYN | flags, 0, 0) }
}

/// A server's connection whose other end takes part.
pub(crate) fn established() -> (Host, SocketId) {
    let mut host = Host::new();
    let listener = host.listen(4);
    host.receive(asking(Flags::ECE | Flags::CWR));
    host.expect_flags(Flags::SYN | Flags::ACK | Flags::ECE);
    host.receive(ack(1, 1));
    let (id, _) = host.stack.accept(host.now, listener).unwrap();
    host.class = CAPABLE;
    (host, id)
}

fn codepoint(host: &Host) -> u8 {
    host.ip.expect("a segment has left").traffic_class & 3
}

#[test]
fn a_syn_that_asks_is_answered_and_one_that_asks_by_half_is_not() {
    for (flags, answer) in
        [(Flags::ECE | Flags::CWR, Flags::ECE), (Flags::ECE, Flags::empty()), (Flags::CWR, Flags::empty())]
    {
        let mut host = Host::new();
        host.listen(1);
        host.receive(asking(flags));
        host.expect_flags(Flags::SYN | Flags::ACK | answer);
        assert_eq!(codepoint(&host), 0, "section 6.1.1: the handshake is not marked");
    }
    let mut host = Host::with(|config| config.tcp.ecn = Ecn::Off);
    host.listen(1);
    host.receive(asking(Flags::ECE | Flags::CWR));
    host.expect_flags(Flags::SYN | Flags::ACK);
}

#[test]
fn a_client_asks_once_and_takes_part_if_the_answer_says_yes() {
    for (answer, takes_part) in
        [(Flags::ECE, true), (Flags::empty(), false), (Flags::ECE | Flags::CWR, false)]
    {
        let mut host = Host::with(|config| config.tcp.ecn = Ecn::Ask);
        host.remote.set_port(80);
        let id = host.stack.connect(host.now, host.remote, Default::default()).unwrap();
        host.local_port = host.stack.addresses(id).unwrap().0.port();
        host.expect_flags(Flags::SYN | Flags::ECE | Flags::CWR);
        host.wait_ms(1000);
        host.expect_flags(Flags::SYN); // perhaps somebody on the way did not like it
        host.receive(Seg { options: syn_options(), ..seg(Flags::SYN | Flags::ACK | answer, 0, 1) });
        host.expect_ack(1);
        host.send(id, 10);
        host.expect_data(1, 10);
        assert_eq!(codepoint(&host), if takes_part { CAPABLE } else { 0 });
        let options = host.info(id).options;
        assert_eq!(options & 8 != 0, takes_part, "TCPI_OPT_ECN");
    }
}

#[test]
fn marks_are_echoed_until_the_other_end_says_that_it_has_slowed_down() {
    let (mut host, id) = established();
    host.receive(ack(1, 1).data(10));
    assert_eq!(host.expect_ack(11).flags, Flags::ACK);
    host.class = EXPERIENCED;
    host.receive(ack(11, 1).data(10));
    host.expect_flags(Flags::ACK | Flags::ECE);
    host.class = CAPABLE;
    host.receive(ack(21, 1).data(10));
    host.expect_flags(Flags::ACK | Flags::ECE);
    host.send(id, 5);
    assert!(host.expect_data(1, 5).flags.contains(Flags::ECE));
    host.receive(Seg { flags: Flags::ACK | Flags::CWR, ..ack(31, 6).data(10) });
    host.expect_flags(Flags::ACK);
    // Told and marked again at the same time: the mark is the later news.
    host.class = EXPERIENCED;
    host.receive(Seg { flags: Flags::ACK | Flags::CWR, ..ack(41, 6).data(10) });
    host.expect_flags(Flags::ACK | Flags::ECE);
    assert_ne!(host.info(id).options & 16, 0, "TCPI_OPT_ECN_SEEN");
}

#[test]
fn new_data_can_be_marked_and_nothing_else() {
    let (mut host, id) = established();
    host.send(id, 1000);
    host.expect_data(1, 1000);
    assert_eq!(codepoint(&host), CAPABLE);
    host.receive(ack(1, 1).data(10));
    host.expect_ack(11);
    assert_eq!(codepoint(&host), 0, "section 6.1.4: no bare acknowledgement");
    host.wait_ms(3000);
    assert!(!host.drain().is_empty());
    assert_eq!(codepoint(&host), 0, "section 6.1.5: no retransmission");
}

#[test]
fn an_echo_shrinks_the_window_once_a_round_trip_and_the_next_data_says_so() {
    let (mut host, id) = established();
    host.send(id, 60_000);
    assert_eq!(host.drain().len(), 10);
    let echo = |una| Seg { flags: Flags::ACK | Flags::ECE, ..ack(1, una) };
    let mut told = 0;
    for una in (1001..=10_001).step_by(1000) {
        host.receive(echo(una));
        told += host.drain().iter().filter(|segment| segment.flags.contains(Flags::CWR)).count();
    }
    assert_eq!(told, 1);
    let info = host.info(id);
    assert_eq!((info.snd_ssthresh, info.ca_state), (7, 2), "seven tenths of ten, in the state CWR");
    assert_eq!(info.total_retrans, 0);
    // What is sent after the reduction, and is marked as well, reduces it once more.
    let nxt = 10_001 + info.unacked * 1000;
    host.receive(echo(nxt));
    host.receive(echo(nxt));
    host.drain();
    assert!(host.info(id).snd_ssthresh < 7);
}

#[test]
fn a_syn_that_can_be_marked_itself_is_not_answered() {
    // RFC 3168 forbids it, so somebody on the way writes over these bits: Linux has nothing to do with it. Accurate ECN
    // (RFC 9768) allows it.
    for (class, more, answer) in [
        (CAPABLE, Flags::empty(), Flags::empty()),
        (EXPERIENCED, Flags::empty(), Flags::empty()),
        (CAPABLE, Flags::NS, Flags::ECE),
    ] {
        for stamps in [None, Some(sockshim_tcpip::wire::tcp::Timestamps { value: 1, echo: 0 })] {
            let mut host = Host::with(|config| config.tcp.max_syn_backlog = 1);
            host.listen(8);
            host.class = class;
            let mut syn = asking(Flags::ECE | Flags::CWR | more);
            syn.options.timestamps = stamps;
            host.receive(syn.clone());
            host.expect_flags(Flags::SYN | Flags::ACK | answer);
            // The same for one that gets a cookie.
            host.remote.set_port(1);
            host.receive(syn);
            let answer = if stamps.is_some() { answer } else { Flags::empty() };
            host.expect_flags(Flags::SYN | Flags::ACK | answer);
        }
    }
}
