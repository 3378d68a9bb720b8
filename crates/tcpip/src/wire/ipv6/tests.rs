use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

const HERE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const THERE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

fn walked(next_header: u8, bytes: &[u8]) -> Result<Payload<'_>, ExtensionDrop> {
    payload(next_header, bytes, Header::LEN)
}

fn tcp(bytes: &[u8]) -> Result<Payload<'_>, ExtensionDrop> {
    Ok(Payload::Whole { protocol: protocol::TCP, bytes })
}

fn problem(reason: DropReason, code: u8, pointer: u32, even_to_multicast: bool) -> ExtensionDrop {
    ExtensionDrop { reason, problem: Some(ParameterProblem { code, pointer, even_to_multicast }) }
}

#[test]
fn padding_of_the_link_is_cut_off_and_lengths_are_checked() {
    let mut bytes = alloc::vec![0; Header::LEN];
    Header::new(HERE, THERE, protocol::UDP).emit(3, &mut bytes);
    bytes.extend(b"abc???");
    assert_eq!(Header::parse(&bytes).unwrap().1, b"abc");
    assert_eq!(Header::parse(&bytes[..42]), Err(DropReason::Ipv6Truncated));
    assert_eq!(Header::parse(&bytes[..39]), Err(DropReason::Ipv6Truncated));
    bytes[0] = 0x45;
    assert_eq!(Header::parse(&bytes), Err(DropReason::Ipv6Version));
}

#[test]
fn headers_with_nothing_to_obey_are_skipped() {
    let hop_by_hop = [protocol::IPV6_ROUTING, 0, 5, 2, 0, 0, 1, 0];
    let routing = [protocol::IPV6_DESTINATION, 0, 4, 0, 9, 9, 9, 9];
    let destination = [protocol::IPV6_FRAGMENT, 1, 1, 4, 0, 0, 0, 0, 0x3e, 2, 8, 8, 0, 0, 0, 0];
    let atomic = [protocol::TCP, 0, 0, 0, 1, 2, 3, 4];
    let bytes = [&hop_by_hop[..], &routing, &destination, &atomic, b"abc"].concat();
    assert_eq!(walked(protocol::IPV6_HOP_BY_HOP, &bytes), tcp(b"abc"));
}

#[test]
fn a_fragment_is_told_from_a_packet() {
    let fragment = Fragment { next_header: protocol::TCP, offset: 1456, more: true, ident: 0xdead_beef };
    let mut bytes = alloc::vec![0; Fragment::LEN];
    fragment.emit(&mut bytes);
    bytes.extend(b"abc");
    assert_eq!(walked(protocol::IPV6_FRAGMENT, &bytes), Ok(Payload::Part { fragment, bytes: b"abc" }));
}

#[test]
fn nothing_may_follow() {
    assert_eq!(walked(protocol::IPV6_NO_NEXT, b"ignored"), Ok(Payload::Nothing));
}

#[test]
fn hop_by_hop_options_elsewhere_are_an_unknown_header() {
    let bytes = [protocol::IPV6_HOP_BY_HOP, 0, 1, 4, 0, 0, 0, 0, protocol::TCP, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(
        walked(protocol::IPV6_DESTINATION, &bytes),
        Err(problem(DropReason::Ipv6Extension, 1, 40, false))
    );
}

#[test]
fn a_route_with_segments_left_is_refused() {
    let bytes = [protocol::TCP, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(walked(protocol::IPV6_ROUTING, &bytes), Err(problem(DropReason::Ipv6Routing, 0, 42, false)));
}

#[test]
fn an_unknown_option_says_itself_what_to_do() {
    let with = |kind| [protocol::TCP, 0, 1, 0, kind, 2, 0, 0];
    assert_eq!(walked(protocol::IPV6_DESTINATION, &with(0x1f)), tcp(b""));
    let silent = ExtensionDrop::silent(DropReason::Ipv6Option);
    assert_eq!(walked(protocol::IPV6_DESTINATION, &with(0x5f)), Err(silent));
    let told = |even| Err(problem(DropReason::Ipv6Option, 2, 44, even));
    assert_eq!(walked(protocol::IPV6_DESTINATION, &with(0x9f)), told(true));
    assert_eq!(walked(protocol::IPV6_DESTINATION, &with(0xdf)), told(false));
}

#[test]
fn a_chain_without_end_is_refused() {
    let link = [protocol::IPV6_DESTINATION, 0, 1, 4, 0, 0, 0, 0];
    let silent = Err(ExtensionDrop::silent(DropReason::Ipv6Extension));
    assert_eq!(walked(protocol::IPV6_DESTINATION, &link.repeat(100)), silent);
    assert_eq!(walked(protocol::IPV6_DESTINATION, &link.repeat(3)), silent);
    assert_eq!(walked(protocol::IPV6_DESTINATION, &link[..7]), silent);
    assert_eq!(
        original_payload(protocol::IPV6_DESTINATION, &link.repeat(100)),
        Err(DropReason::IcmpOriginal)
    );
}

#[test]
fn an_error_finds_the_protocol_behind_the_headers_of_its_original() {
    let bytes =
        [&[protocol::IPV6_FRAGMENT, 0, 1, 4, 0, 0, 0, 0][..], &[6, 0, 0, 1, 0, 0, 0, 9], b"ports"].concat();
    let found = original_payload(protocol::IPV6_DESTINATION, &bytes);
    assert_eq!(found, Ok((protocol::TCP, &b"ports"[..])));
    let second = [6, 0, 0, 9, 0, 0, 0, 9];
    assert_eq!(original_payload(protocol::IPV6_FRAGMENT, &second), Err(DropReason::IcmpOriginal));
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(
        (source, destination) in (any::<[u16; 8]>(), any::<[u16; 8]>()),
        (next_header, hop_limit, traffic_class) in (any::<u8>(), any::<u8>(), any::<u8>()),
        flow_label in 0u32..0x10_0000,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let header = Header {
            source: source.into(), destination: destination.into(), next_header, hop_limit, traffic_class, flow_label,
        };
        let mut bytes = alloc::vec![0; Header::LEN];
        header.emit(payload.len(), &mut bytes);
        bytes.extend(&payload);
        prop_assert_eq!(Header::parse(&bytes), Ok((header, &payload[..])));
        prop_assert_eq!(Header::parse_original(&bytes).unwrap().0, header);
    }

    #[test]
    fn any_bytes_are_walked_without_harm(next_header: u8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let chained: Vec<u8> = bytes.iter().map(|byte| if byte % 3 == 0 { 60 } else { byte % 8 }).collect();
        for bytes in [&bytes, &chained] {
            for first in [next_header, 0, 43, 44, 60] {
                let _ = walked(first, bytes);
                let _ = original_payload(first, bytes);
            }
        }
    }
}
