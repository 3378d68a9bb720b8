//! Cuts super-segments, as a link with segmentation offload does.
//!
//! packetdrill puts consecutive segments together until they are as long as the packet that it expects, and cannot cut
//! one that is longer. So segments of the size that travels suit it best.

/// Cuts an IP packet with a TCP segment of more than `size` bytes of data.
pub(crate) fn cut(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let is_v4 = packet[0] >> 4 == 4;
    let ip_len = if is_v4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let headers = ip_len + usize::from(packet[ip_len + 12] >> 4) * 4;
    let (header, data) = packet.split_at(headers);
    let mut cut = Vec::new();
    for (index, piece) in data.chunks(size).enumerate() {
        let mut segment = [header, piece].concat();
        let seq = &mut segment[ip_len + 4..ip_len + 8];
        let start =
            u32::from_be_bytes(*seq.first_chunk().expect("four bytes")).wrapping_add((index * size) as u32);
        seq.copy_from_slice(&start.to_be_bytes());
        let flags = &mut segment[ip_len + 13];
        if (index + 1) * size < data.len() {
            *flags &= !(FIN | PSH);
        }
        if index > 0 {
            *flags &= !CWR;
        }
        if is_v4 {
            let total = (segment.len() as u16).to_be_bytes();
            segment[2..4].copy_from_slice(&total);
            segment[10..12].fill(0);
            let sum = checksum(&segment[..ip_len]).to_be_bytes();
            segment[10..12].copy_from_slice(&sum);
        } else {
            let payload = ((segment.len() - ip_len) as u16).to_be_bytes();
            segment[4..6].copy_from_slice(&payload);
        }
        // packetdrill does not look at TCP's checksum.
        cut.push(segment);
    }
    cut
}

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 128;

/// The checksum of RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
