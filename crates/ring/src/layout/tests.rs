use super::{
    CLOSED, Consumer, Direction, END_ABSENT, END_JOINED, END_LEFT, END_RESET, FRONT_SIZE, HANDED_AWAY,
    HANDED_NOT, HANDED_ON, HANDED_SOON, HEADER_SIZE, Header, MAGIC, MAX_CAPACITY, Producer, RINGS_SIZE,
    Reader, Room, SEGMENT_SIZE, SMALL_CAPACITY, Sleep, Switch, TINY_CAPACITY, VERSION, direction_offset,
    ring_offset, small_ring_offset, tiny_ring_offset,
};
use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

const DOCUMENT: &str = include_str!("../../../../docs/protocol.md");

/// Rows of the table after the comment `<!-- NAME -->`: its first three cells.
fn table(name: &str) -> BTreeMap<String, (usize, usize)> {
    let (_, rest) = DOCUMENT.split_once(&format!("<!-- {name} -->")).expect("the document has the table");
    let rows = rest.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let number = |cell: &str| cell.parse().unwrap_or_else(|_| panic!("a number in {row}"));
        (cells[1].trim_matches('`').to_owned(), (number(cells[2]), number(cells[3])))
    })
    .collect()
}

macro_rules! fields {
    ($start:expr, $type:ty, $prefix:literal: $($field:ident $size:expr),+) => {
        [$((concat!($prefix, stringify!($field)).to_owned(), ($start + offset_of!($type, $field), $size))),+]
    };
}

#[test]
fn the_documented_segment_is_the_real_one() {
    let real = BTreeMap::from([
        ("Header".to_owned(), (0, size_of::<Header>())),
        ("Direction 0".to_owned(), (direction_offset(0), size_of::<Direction>())),
        ("Direction 1".to_owned(), (direction_offset(1), size_of::<Direction>())),
        ("tiny ring 0".to_owned(), (tiny_ring_offset(0), TINY_CAPACITY as usize)),
        ("tiny ring 1".to_owned(), (tiny_ring_offset(1), TINY_CAPACITY as usize)),
        ("small ring 0".to_owned(), (small_ring_offset(0), SMALL_CAPACITY as usize)),
        ("small ring 1".to_owned(), (small_ring_offset(1), SMALL_CAPACITY as usize)),
        ("ring 0".to_owned(), (ring_offset(0), MAX_CAPACITY as usize)),
        ("ring 1".to_owned(), (ring_offset(1), MAX_CAPACITY as usize)),
    ]);
    assert_eq!(table("segment"), real);
    assert!(tiny_ring_offset(0) >= direction_offset(1) + size_of::<Direction>());
    assert!(tiny_ring_offset(1) + TINY_CAPACITY as usize <= HEADER_SIZE);
    assert_eq!(small_ring_offset(0), HEADER_SIZE);
    assert_eq!(small_ring_offset(1) + SMALL_CAPACITY as usize, FRONT_SIZE);
    assert_eq!(ring_offset(0), FRONT_SIZE);
    assert_eq!(ring_offset(1) + MAX_CAPACITY as usize, FRONT_SIZE + RINGS_SIZE);
}

#[test]
fn the_documented_header_is_the_real_one() {
    let real = fields!(0, Header, "": magic 8, version 4, size 4, cookies 16, namespace 8, ends 8, names 56);
    assert_eq!(table("header"), BTreeMap::from(real));
}

#[test]
fn the_documented_direction_is_the_real_one() {
    let real: BTreeMap<_, _> = fields!(offset_of!(Direction, producer), Producer, "producer.": tail 8, capacity 4, cpu 4, slot 4, publish_times 32)
        .into_iter()
        .chain(fields!(offset_of!(Direction, consumer), Consumer, "consumer.": head 8, cpu 4))
        .chain(fields!(offset_of!(Direction, sleep), Sleep, "sleep.": asleep 4, ordered 4))
        .chain(fields!(
            offset_of!(Direction, switch), Switch, "switch.": gate 4, doorbells 8, kernel_end 8, ring_end 8, resume 8
        ))
        .chain(fields!(
            offset_of!(Direction, reader), Reader, "reader.": ready 4, epoch 4, kernel_read 8, doorbells_past 8, ring_limit 4, handed 4
        ))
        .chain(fields!(offset_of!(Direction, room), Room, "room.": released 8, awaited 4))
        .collect();
    assert_eq!(table("direction"), real);
}

#[test]
fn the_documented_constants_are_the_real_ones() {
    for (name, value) in [
        ("VERSION", u64::from(VERSION)),
        ("TINY_CAPACITY", u64::from(TINY_CAPACITY)),
        ("SMALL_CAPACITY", u64::from(SMALL_CAPACITY)),
        ("MAX_CAPACITY", u64::from(MAX_CAPACITY)),
        ("SEGMENT_SIZE", SEGMENT_SIZE as u64),
        ("END_ABSENT", u64::from(END_ABSENT)),
        ("END_JOINED", u64::from(END_JOINED)),
        ("END_LEFT", u64::from(END_LEFT)),
        ("END_RESET", u64::from(END_RESET)),
        ("HANDED_NOT", u64::from(HANDED_NOT)),
        ("HANDED_SOON", u64::from(HANDED_SOON)),
        ("HANDED_ON", u64::from(HANDED_ON)),
        ("HANDED_AWAY", u64::from(HANDED_AWAY)),
    ] {
        assert!(DOCUMENT.contains(&format!("| `{name}` | {value} |")), "{name} is {value}");
    }
    assert_eq!(&MAGIC.to_le_bytes(), b"sockshim");
    assert_eq!(CLOSED, 1 << 63);
}

#[test]
fn what_two_processors_write_lies_on_different_lines() {
    let lines = [
        offset_of!(Direction, producer),
        offset_of!(Direction, consumer),
        offset_of!(Direction, sleep),
        offset_of!(Direction, switch),
        offset_of!(Direction, reader),
        offset_of!(Direction, room),
    ];
    assert!(lines.windows(2).all(|pair| pair[1] - pair[0] == 128));
    assert_eq!(align_of::<Direction>(), size_of::<Direction>());
}
