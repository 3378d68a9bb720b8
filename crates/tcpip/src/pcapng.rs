//! Packet captures in pcapng (the IETF draft draft-ietf-opsawg-pcapng), which Wireshark opens: what went over each
//! interface, when to the nanosecond, with comments for what a packet does not show, such as that the link dropped it.

use alloc::vec::Vec;

use crate::time::Instant;

/// What the packets of an interface begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkType {
    /// An Ethernet header.
    Ethernet = 1,
    /// An IPv4 or IPv6 header.
    Raw = 101,
}

/// An interface of the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceId(u32);

/// Which way a packet went, seen from its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The packet was received.
    Inbound = 1,
    /// The packet was sent.
    Outbound = 2,
}

/// Writes a capture to memory. The caller writes [`take`](Self::take) to its file now and then, in order.
#[derive(Debug, Clone)]
pub struct Writer {
    out: Vec<u8>,
    interfaces: u32,
}

impl Writer {
    /// A capture of one section.
    pub fn new() -> Self {
        let mut writer = Self { out: Vec::new(), interfaces: 0 };
        writer.block(SECTION_HEADER, |out| {
            out.extend_from_slice(&BYTE_ORDER.to_le_bytes());
            out.extend_from_slice(&1_u16.to_le_bytes()); // version 1.0
            out.extend_from_slice(&0_u16.to_le_bytes());
            out.extend_from_slice(&u64::MAX.to_le_bytes()); // the section's length is not given
        });
        writer
    }

    /// Adds an interface.
    pub fn interface(&mut self, name: &str, link_type: LinkType) -> InterfaceId {
        self.block(INTERFACE_DESCRIPTION, |out| {
            out.extend_from_slice(&(link_type as u16).to_le_bytes());
            out.extend_from_slice(&0_u16.to_le_bytes());
            out.extend_from_slice(&0_u32.to_le_bytes()); // no limit on what is kept of a packet
            option(out, IF_NAME, name.as_bytes());
            option(out, IF_TSRESOL, &[9]);
            option(out, END_OF_OPTIONS, &[]);
        });
        self.interfaces += 1;
        InterfaceId(self.interfaces - 1)
    }

    /// Adds a packet; `comment` may be empty.
    pub fn packet(
        &mut self,
        interface: InterfaceId,
        at: Instant,
        direction: Direction,
        packet: &[u8],
        comment: &str,
    ) {
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let nanos = at.as_nanos();
        self.block(ENHANCED_PACKET, |out| {
            out.extend_from_slice(&interface.0.to_le_bytes());
            out.extend_from_slice(&((nanos >> 32) as u32).to_le_bytes());
            out.extend_from_slice(&(nanos as u32).to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(packet);
            pad(out);
            if !comment.is_empty() {
                option(out, COMMENT, comment.as_bytes());
            }
            option(out, EPB_FLAGS, &(direction as u32).to_le_bytes());
            option(out, END_OF_OPTIONS, &[]);
        });
    }

    /// Bytes that were written and not taken yet.
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Takes what was written so far.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.out)
    }

    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend_from_slice(&kind.to_le_bytes());
        self.out.extend_from_slice(&[0; 4]); // the length, which stands at both ends
        body(&mut self.out);
        let len = u32::try_from(self.out.len() - start + 4).unwrap_or(u32::MAX).to_le_bytes();
        self.out[start + 4..start + 8].copy_from_slice(&len);
        self.out.extend_from_slice(&len);
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let len = value.len().min(usize::from(u16::MAX));
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&(len as u16).to_le_bytes());
    out.extend_from_slice(&value[..len]);
    pad(out);
}

/// Blocks and options end on multiples of four bytes; each of the writer's blocks begins on one.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::vec::Vec;

    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    #[test]
    fn a_capture_is_read_back_by_another_program() {
        let mut writer = Writer::new();
        let raw = writer.interface("client", LinkType::Raw);
        let ethernet = writer.interface("server", LinkType::Ethernet);
        let at = Instant::from_nanos(1_700_000_000_123_456_789);
        writer.packet(raw, at, Direction::Outbound, &[0x45, 0, 1], "dropped: queue full");
        let mut file = writer.take();
        writer.packet(ethernet, at, Direction::Inbound, &[7; 60], "");
        file.extend(writer.take());

        let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                packets.push(packet.into_owned());
            }
        }
        let names: Vec<_> = reader.interfaces().iter().map(|i| (i.linktype, i.options.len())).collect();
        assert_eq!(names, [(pcap_file::DataLink::RAW, 2), (pcap_file::DataLink::ETHERNET, 2)]);
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[0].data, Cow::Borrowed(&[0x45, 0, 1]));
        assert_eq!(packets[0].timestamp.as_nanos(), u128::from(at.as_nanos()));
        let comment = EnhancedPacketOption::Comment(Cow::Borrowed("dropped: queue full"));
        assert!(packets[0].options.contains(&comment), "{:?}", packets[0].options);
        assert_eq!((packets[1].interface_id, packets[1].data.len()), (1, 60));
    }
}
