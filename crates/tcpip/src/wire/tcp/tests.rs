use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

fn header(options: Options, flags: Flags) -> Header {
    Header {
        src_port: 1000,
        dst_port: 2000,
        seq: SeqNumber::new(0x1234_5678),
        ack: SeqNumber::new(0x9abc_def0),
        flags,
        window: 512,
        urgent: 0,
        options,
    }
}

fn emitted(header: &Header) -> Vec<u8> {
    let mut bytes = alloc::vec![0; MAX_LEN];
    let len = header.emit(&mut bytes);
    bytes.truncate(len);
    bytes
}

/// A segment with these bytes as options, filled up with ends.
fn with_options(flags: Flags, options: &[u8]) -> Options {
    let mut bytes = emitted(&header(Options::default(), flags));
    bytes.extend(options);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes[12] = (bytes.len() as u8 / 4) << 4;
    parse(&bytes).unwrap().0.options
}

const TIMESTAMPS: Option<Timestamps> = Some(Timestamps { value: 0x0102_0304, echo: 0x0506_0708 });

fn blocks(count: u32) -> SackBlocks {
    let mut blocks = SackBlocks::default();
    for block in 0..count {
        assert!(blocks.push((SeqNumber::new(block * 100), SeqNumber::new(block * 100 + 50))));
    }
    blocks
}

#[test]
fn a_syn_is_laid_out_as_linux_does() {
    let options = Options {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: TIMESTAMPS,
        ..Options::default()
    };
    let bytes = emitted(&header(options, Flags::SYN));
    assert_eq!(bytes[12..14], [0xa0, 0x02]);
    assert_eq!(bytes[20..], [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 3, 3, 7]);
}

#[test]
fn a_syn_without_timestamps_pads_sack_permitted() {
    let options =
        Options { mss: Some(536), window_scale: Some(0), sack_permitted: true, ..Options::default() };
    let bytes = emitted(&header(options, Flags::SYN));
    assert_eq!(bytes[20..], [2, 4, 2, 24, 1, 1, 4, 2, 1, 3, 3, 0]);
}

#[test]
fn data_carries_aligned_timestamps() {
    let bytes = emitted(&header(Options { timestamps: TIMESTAMPS, ..Options::default() }, Flags::ACK));
    assert_eq!(bytes[20..], [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn four_blocks_fit_without_timestamps_and_three_with_them() {
    let four = Options { sack: blocks(4), ..Options::default() };
    assert_eq!(parse(&emitted(&header(four, Flags::ACK))).unwrap().0.options, four);
    let too_many = Options { timestamps: TIMESTAMPS, ..four };
    let parsed = parse(&emitted(&header(too_many, Flags::ACK))).unwrap().0.options;
    assert_eq!(parsed, Options { sack: blocks(3), timestamps: TIMESTAMPS, ..Options::default() });
    assert!(!blocks(4).push((SeqNumber::new(0), SeqNumber::new(1))));
}

#[test]
fn options_of_a_handshake_count_in_a_syn_only() {
    let bytes = [2, 4, 5, 0xb4, 3, 3, 7, 4, 2];
    assert_eq!(with_options(Flags::ACK, &bytes), Options::default());
    let seen = with_options(Flags::SYN, &bytes);
    assert_eq!((seen.mss, seen.window_scale, seen.sack_permitted), (Some(1460), Some(7), true));
}

#[test]
fn a_window_scale_beyond_14_counts_as_14() {
    assert_eq!(with_options(Flags::SYN, &[3, 3, 200]).window_scale, Some(14));
}

#[test]
fn unknown_options_are_skipped_and_an_end_ends_them() {
    let seen = with_options(Flags::SYN, &[253, 5, 0, 0, 0, 4, 2]);
    assert!(seen.sack_permitted);
    assert_eq!(with_options(Flags::SYN, &[0, 4, 2]), Options::default());
}

#[test]
fn a_malformed_option_ends_them_but_keeps_what_came_before() {
    for malformed in [&[3, 0][..], &[3, 1], &[3, 9], &[8]] {
        let mut bytes = Vec::from([1, 4, 2]);
        bytes.extend(malformed);
        bytes.resize(bytes.len().next_multiple_of(4) - 4 + 4, 3);
        let seen = with_options(Flags::SYN, &bytes);
        assert!(seen.sack_permitted, "{malformed:?}");
        assert_eq!(seen.window_scale, None, "{malformed:?}");
    }
}

#[test]
fn options_of_a_wrong_length_are_ignored() {
    let wrong =
        [2, 3, 5, 3, 4, 1, 1, 8, 9, 0, 0, 0, 0, 0, 0, 0, 5, 9, 0, 0, 0, 0, 0, 0, 0, 4, 3, 0, 2, 4, 0, 0];
    assert_eq!(with_options(Flags::SYN, &wrong), Options::default());
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let bytes = emitted(&header(Options::default(), Flags::ACK));
    assert_eq!(parse(&bytes[..19]), Err(DropReason::TcpTruncated));
    for offset in [0x40, 0x60, 0xf0] {
        let mut bad = bytes.clone();
        bad[12] = offset;
        assert_eq!(parse(&bad), Err(DropReason::TcpDataOffset));
    }
}

#[test]
fn flags_are_shown_as_tcpdump_shows_them() {
    assert_eq!(std::format!("{:?}", Flags::SYN | Flags::ACK | Flags::ECE), "SE.");
    assert!((Flags::SYN | Flags::ACK).contains(Flags::ACK));
    assert!(!Flags::SYN.contains(Flags::SYN | Flags::ACK));
    assert!(Flags::SYN.intersects(Flags::SYN | Flags::ACK));
    assert_eq!((Flags::SYN | Flags::ACK).without(Flags::ACK), Flags::SYN);
}

pub(crate) fn any_options() -> impl Strategy<Value = Options> {
    (
        prop::option::of(1u16..),
        prop::option::of(0u8..15),
        any::<bool>(),
        prop::option::of((any::<u32>(), any::<u32>())),
        prop::collection::vec((any::<u32>(), any::<u32>()), 0..=4),
    )
        .prop_map(|(mss, window_scale, sack_permitted, timestamps, blocks)| {
            let mut sack = SackBlocks::default();
            for (from, to) in blocks {
                sack.push((SeqNumber::new(from), SeqNumber::new(to)));
            }
            let timestamps = timestamps.map(|(value, echo)| Timestamps { value, echo });
            Options { mss, window_scale, sack_permitted, timestamps, sack }
        })
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(
        options in any_options(),
        (flags, ports, window, urgent) in (0u16..0x200, any::<(u16, u16)>(), any::<u16>(), any::<u16>()),
        (seq, ack) in (any::<u32>(), any::<u32>()),
    ) {
        let flags = Flags::from_bits(flags) | Flags::SYN;
        let header = Header {
            src_port: ports.0, dst_port: ports.1, seq: SeqNumber::new(seq), ack: SeqNumber::new(ack),
            flags, window, urgent, options,
        };
        let bytes = emitted(&header);
        prop_assert_eq!(bytes.len(), header.len());
        prop_assert_eq!(bytes.len() % 4, 0);
        let (parsed, offset) = parse(&bytes).unwrap();
        prop_assert_eq!(offset, bytes.len());
        let fitting = parsed.options.sack.as_slice();
        prop_assert_eq!(fitting, &options.sack.as_slice()[..fitting.len()]);
        prop_assert!(fitting.len() == options.sack.as_slice().len() || bytes.len() + 8 > MAX_LEN);
        prop_assert_eq!(Header { options: Options { sack: options.sack, ..parsed.options }, ..parsed }, header);
    }

    #[test]
    fn any_options_are_read_without_harm_and_the_fast_path_agrees(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut aligned = bytes.clone();
        aligned.resize(12, 9);
        aligned[..4].copy_from_slice(&ALIGNED_TIMESTAMPS.to_be_bytes());
        for (bytes, flags) in [(&bytes, Flags::ACK), (&bytes, Flags::SYN), (&aligned, Flags::ACK)] {
            let mut head = [0; MIN_LEN];
            head[13] = flags.bits() as u8;
            let (mut fast, mut slow) = (Header::read(&head), Header::read(&head));
            fast.read_options(bytes);
            parse_options(bytes, flags.contains(Flags::SYN), &mut slow.options);
            prop_assert_eq!(fast, slow);
        }
    }
}
