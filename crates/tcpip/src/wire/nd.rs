//! Neighbour solicitations and advertisements (RFC 4861 §4.3, §4.4).

use super::{DropReason, MacAddr, read_array};
use alloc::vec::Vec;
use core::net::Ipv6Addr;

/// One of the two messages between neighbours. Those of routers are not understood yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has the target's address?
    Solicitation {
        /// The address that the message is about.
        target: Ipv6Addr,
        /// The asker's link-layer address; none while it asks whether the address is free (RFC 4862 §5.4).
        source: Option<MacAddr>,
    },
    /// The sender has it.
    Advertisement {
        /// The address that the message is about.
        target: Ipv6Addr,
        /// The link-layer address that has it.
        link_address: Option<MacAddr>,
        /// The sender is a router.
        router: bool,
        /// An answer to a question.
        solicited: bool,
        /// A link-layer address that was known before is to be forgotten.
        overrides: bool,
    },
}

/// The type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// The type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;

/// What packets with these messages have as their hop limit, so that no router can have sent them on.
pub const HOP_LIMIT: u8 = 255;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDES: u8 = 0x20;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// Bytes before the options.
const FIXED_LEN: usize = 24;

/// The group of all nodes on a link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The solicited-node group of `address` (RFC 4291 §2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

impl Message {
    /// Reads one whose checksum is right, with all the checks of RFC 4861 §7.1.
    pub(super) fn parse(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        hop_limit: u8,
        bytes: &[u8],
    ) -> Result<Self, DropReason> {
        let (head, options) = bytes.split_first_chunk::<FIXED_LEN>().ok_or(DropReason::NdiscInvalid)?;
        let target = Ipv6Addr::from(read_array::<16>(head, 8));
        if hop_limit != HOP_LIMIT || head[1] != 0 || target.is_multicast() {
            return Err(DropReason::NdiscInvalid);
        }
        if head[0] == SOLICITATION {
            let link_address = link_layer(options, SOURCE_LINK_LAYER)?;
            // Who has no address yet asks the group, and has no link-layer address to tell of.
            let probe = source.is_unspecified();
            if probe && (destination != solicited_node(target) || link_address.is_some()) {
                return Err(DropReason::NdiscInvalid);
            }
            return Ok(Self::Solicitation { target, source: link_address });
        }
        let flags = head[4];
        let solicited = flags & SOLICITED != 0;
        if solicited && destination.is_multicast() {
            return Err(DropReason::NdiscInvalid);
        }
        Ok(Self::Advertisement {
            target,
            link_address: link_layer(options, TARGET_LINK_LAYER)?,
            router: flags & ROUTER != 0,
            solicited,
            overrides: flags & OVERRIDES != 0,
        })
    }

    /// Appends it with a checksum field of zero.
    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let (kind, flags, target, option) = match *self {
            Self::Solicitation { target, source } => (SOLICITATION, 0, target, (SOURCE_LINK_LAYER, source)),
            Self::Advertisement { target, link_address, router, solicited, overrides } => {
                let flags = if router { ROUTER } else { 0 }
                    | if solicited { SOLICITED } else { 0 }
                    | if overrides { OVERRIDES } else { 0 };
                (ADVERTISEMENT, flags, target, (TARGET_LINK_LAYER, link_address))
            }
        };
        out.extend([kind, 0, 0, 0, flags, 0, 0, 0]);
        out.extend(target.octets());
        if let (kind, Some(MacAddr(link_address))) = option {
            out.extend([kind, 1]);
            out.extend(link_address);
        }
    }
}

/// The link-layer address in the first option of this kind. Every option must have a length (RFC 4861 §4.6).
fn link_layer(mut options: &[u8], wanted: u8) -> Result<Option<MacAddr>, DropReason> {
    let mut found = None;
    while !options.is_empty() {
        let [kind, units @ 1..=u8::MAX, ..] = *options else { return Err(DropReason::NdiscInvalid) };
        let (option, rest) =
            options.split_at_checked(usize::from(units) * 8).ok_or(DropReason::NdiscInvalid)?;
        if kind == wanted && found.is_none() && units == 1 {
            let link_address = MacAddr(read_array(option, 2));
            if !link_address.is_unicast() {
                return Err(DropReason::NdiscInvalid);
            }
            found = Some(link_address);
        }
        options = rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmp6;

    const HERE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const THERE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x12, 0x3456);
    const LINK_ADDRESS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const ASK: Message = Message::Solicitation { target: THERE, source: Some(LINK_ADDRESS) };
    const ANSWER: Message = Message::Advertisement {
        target: THERE,
        link_address: Some(LINK_ADDRESS),
        router: false,
        solicited: true,
        overrides: true,
    };

    fn parsed(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        hops: u8,
        bytes: &[u8],
    ) -> Result<Message, DropReason> {
        match icmp6::Message::parse(source, destination, hops, bytes)? {
            icmp6::Message::Neighbour(message) => Ok(message),
            other => panic!("{other:?}"),
        }
    }

    fn sent(message: Message, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut bytes = Vec::new();
        icmp6::Message::Neighbour(message).emit(source, destination, &mut bytes);
        bytes
    }

    fn exchanged(message: Message, source: Ipv6Addr, destination: Ipv6Addr) -> Result<Message, DropReason> {
        parsed(source, destination, HOP_LIMIT, &sent(message, source, destination))
    }

    #[test]
    fn the_group_of_an_address_has_its_last_24_bits() {
        assert_eq!(solicited_node(THERE), "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn what_is_emitted_is_parsed() {
        assert_eq!(exchanged(ASK, HERE, solicited_node(THERE)), Ok(ASK));
        assert_eq!(exchanged(ANSWER, THERE, HERE), Ok(ANSWER));
        let bare = Message::Advertisement {
            target: THERE,
            link_address: None,
            router: true,
            solicited: false,
            overrides: false,
        };
        assert_eq!(exchanged(bare, THERE, ALL_NODES), Ok(bare));
    }

    #[test]
    fn what_a_router_may_have_sent_on_is_refused() {
        let bytes = sent(ASK, HERE, THERE);
        assert_eq!(parsed(HERE, THERE, 254, &bytes), Err(DropReason::NdiscInvalid));
    }

    #[test]
    fn a_probe_names_no_link_address_and_goes_to_the_group() {
        let probe = Message::Solicitation { target: THERE, source: None };
        let nobody = Ipv6Addr::UNSPECIFIED;
        assert_eq!(exchanged(probe, nobody, solicited_node(THERE)), Ok(probe));
        assert_eq!(exchanged(probe, nobody, THERE), Err(DropReason::NdiscInvalid));
        assert_eq!(exchanged(ASK, nobody, solicited_node(THERE)), Err(DropReason::NdiscInvalid));
    }

    #[test]
    fn an_answer_to_a_group_is_no_answer_to_a_question() {
        assert_eq!(exchanged(ANSWER, THERE, ALL_NODES), Err(DropReason::NdiscInvalid));
    }

    #[test]
    fn options_without_length_and_groups_as_targets_are_refused() {
        let group = Message::Solicitation { target: ALL_NODES, source: None };
        assert_eq!(exchanged(group, HERE, THERE), Err(DropReason::NdiscInvalid));
        for option in [[1, 0, 2, 0, 0, 0, 0, 1], [1, 2, 2, 0, 0, 0, 0, 1], [1, 1, 3, 0, 0, 0, 0, 1]] {
            let mut options = Vec::from([99, 1, 0, 0, 0, 0, 0, 0]);
            options.extend(option);
            assert_eq!(link_layer(&options, SOURCE_LINK_LAYER), Err(DropReason::NdiscInvalid));
        }
    }
}
