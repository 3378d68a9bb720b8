use super::*;
use core::net::Ipv4Addr;

const LINK: InterfaceId = InterfaceId(1);
const LINK_ADDRESS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn address(last: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, (last >> 8) as u8, last as u8))
}

fn neighbours() -> Neighbours {
    Neighbours::new(Config::default(), HashKey::new([1, 2]))
}

fn at(secs: u64) -> Instant {
    Instant::from_secs(secs)
}

fn answer(link_address: MacAddr, solicited: bool, overrides: bool) -> Advertisement {
    Advertisement { link_address: Some(link_address), solicited, overrides }
}

fn actions(neighbours: &mut Neighbours) -> Vec<Action> {
    core::iter::from_fn(|| neighbours.poll_action()).collect()
}

fn asked(last: u16, link_address: Option<MacAddr>) -> Action {
    Action::Ask { interface: LINK, address: address(last), link_address }
}

fn sent(link_address: MacAddr, packet: &[u8]) -> Action {
    Action::Send { interface: LINK, link_address, packet: packet.to_vec() }
}

/// A neighbour that has just answered.
fn reachable(now: Instant) -> Neighbours {
    let mut neighbours = neighbours();
    assert_eq!(neighbours.resolve(now, LINK, address(1)), Resolution::Pending);
    neighbours.heard_answer(now, LINK, address(1), answer(LINK_ADDRESS, true, true));
    actions(&mut neighbours);
    neighbours
}

#[test]
fn packets_wait_for_the_answer_in_their_order() {
    let mut neighbours = neighbours();
    assert_eq!(neighbours.resolve(at(1), LINK, address(1)), Resolution::Pending);
    assert_eq!(neighbours.park(LINK, address(1), b"one".to_vec()), Ok(0));
    assert_eq!(neighbours.resolve(at(1), LINK, address(1)), Resolution::Pending);
    assert_eq!(neighbours.park(LINK, address(1), b"two".to_vec()), Ok(0));
    assert_eq!(actions(&mut neighbours), [asked(1, None)]);
    neighbours.heard_answer(at(2), LINK, address(1), answer(LINK_ADDRESS, true, true));
    assert_eq!(actions(&mut neighbours), [sent(LINK_ADDRESS, b"one"), sent(LINK_ADDRESS, b"two")]);
    assert_eq!(neighbours.resolve(at(2), LINK, address(1)), Resolution::LinkAddress(LINK_ADDRESS));
    assert_eq!(neighbours.pending(), 0);
}

#[test]
fn three_questions_a_second_apart_then_the_packets_fail() {
    let mut neighbours = neighbours();
    neighbours.resolve(at(1), LINK, address(1));
    neighbours.park(LINK, address(1), b"one".to_vec()).unwrap();
    for second in [2, 3] {
        assert_eq!(actions(&mut neighbours), [asked(1, None)]);
        neighbours.handle_timeout(at(second));
    }
    assert_eq!(actions(&mut neighbours), [asked(1, None)]);
    neighbours.handle_timeout(at(4));
    assert_eq!(actions(&mut neighbours), [Action::Fail { packet: b"one".to_vec() }]);
    assert!(neighbours.is_empty());
    assert_eq!(neighbours.poll_timeout(), None);
    assert_eq!(neighbours.resolve(at(5), LINK, address(1)), Resolution::Pending, "it is asked anew");
}

#[test]
fn a_neighbour_that_was_not_heard_of_is_asked_itself_before_it_is_given_up() {
    let mut neighbours = reachable(at(100));
    neighbours.handle_timeout(at(150));
    assert_eq!(neighbours.poll_timeout(), None, "stale, and nobody uses it");
    assert_eq!(neighbours.resolve(at(151), LINK, address(1)), Resolution::LinkAddress(LINK_ADDRESS));
    assert_eq!(actions(&mut neighbours), [], "first a confirmation from above is waited for");
    neighbours.handle_timeout(at(157));
    for second in [159, 161] {
        assert_eq!(actions(&mut neighbours), [asked(1, Some(LINK_ADDRESS))]);
        assert_eq!(neighbours.resolve(at(second), LINK, address(1)), Resolution::LinkAddress(LINK_ADDRESS));
        neighbours.handle_timeout(at(second));
    }
    assert_eq!(actions(&mut neighbours), [asked(1, Some(LINK_ADDRESS))]);
    neighbours.handle_timeout(at(163));
    assert!(neighbours.is_empty());
}

#[test]
fn a_confirmation_from_above_saves_the_question() {
    let mut neighbours = reachable(at(100));
    for second in (110..200).step_by(10) {
        neighbours.confirm(at(second), LINK, address(1));
        neighbours.handle_timeout(at(second));
    }
    neighbours.handle_timeout(at(260));
    neighbours.resolve(at(261), LINK, address(1));
    neighbours.confirm(at(263), LINK, address(1));
    neighbours.handle_timeout(at(270));
    assert_eq!(actions(&mut neighbours), []);
    assert_eq!(neighbours.resolve(at(270), LINK, address(1)), Resolution::LinkAddress(LINK_ADDRESS));
}

#[test]
fn another_link_address_replaces_the_known_one_only_if_it_may() {
    let mut neighbours = reachable(at(100));
    neighbours.heard_answer(at(101), LINK, address(1), answer(OTHER, true, false));
    assert_eq!(neighbours.resolve(at(101), LINK, address(1)), Resolution::LinkAddress(LINK_ADDRESS));
    neighbours.handle_timeout(at(107));
    assert_eq!(actions(&mut neighbours), [asked(1, Some(LINK_ADDRESS))], "but the known one is doubted");
    neighbours.heard_answer(at(107), LINK, address(1), answer(OTHER, false, true));
    assert_eq!(neighbours.resolve(at(107), LINK, address(1)), Resolution::LinkAddress(OTHER));
}

#[test]
fn an_answer_without_question_is_forgotten_and_a_question_makes_a_stale_entry() {
    let mut neighbours = neighbours();
    neighbours.heard_answer(at(1), LINK, address(1), answer(LINK_ADDRESS, true, true));
    assert!(neighbours.is_empty());
    neighbours.heard_question(LINK, address(1), LINK_ADDRESS);
    assert_eq!(neighbours.resolve(at(1), LINK, address(1)), Resolution::LinkAddress(LINK_ADDRESS));
    neighbours.handle_timeout(at(7));
    assert_eq!(actions(&mut neighbours), [asked(1, Some(LINK_ADDRESS))], "what a stranger says is checked");
}

#[test]
fn a_question_of_the_one_that_is_asked_for_is_an_answer() {
    let mut neighbours = neighbours();
    neighbours.resolve(at(1), LINK, address(1));
    neighbours.park(LINK, address(1), b"one".to_vec()).unwrap();
    neighbours.heard_question(LINK, address(1), LINK_ADDRESS);
    assert_eq!(actions(&mut neighbours), [asked(1, None), sent(LINK_ADDRESS, b"one")]);
}

#[test]
fn the_same_address_on_two_links_is_two_neighbours() {
    let mut neighbours = reachable(at(1));
    assert_eq!(neighbours.resolve(at(1), InterfaceId(2), address(1)), Resolution::Pending);
    assert_eq!(neighbours.len(), 2);
}

#[test]
fn the_oldest_packets_make_room_within_the_cap_of_a_neighbour() {
    let config = Config { pending: 1000, ..Config::default() };
    let mut neighbours = Neighbours::new(config, HashKey::new([1, 2]));
    neighbours.resolve(at(1), LINK, address(1));
    let mut dropped = 0;
    for number in 0..20 {
        dropped += neighbours.park(LINK, address(1), alloc::vec![number; 100]).unwrap();
        assert!(neighbours.pending() <= 1000);
    }
    let fit = 1000 / (100 + PACKET_COST);
    assert_eq!(dropped, 20 - fit);
    let too_long = neighbours.park(LINK, address(1), alloc::vec![0; 1000]);
    assert_eq!(too_long, Err(DropReason::NeighbourQueueFull));
    actions(&mut neighbours);
    neighbours.heard_answer(at(1), LINK, address(1), answer(LINK_ADDRESS, true, true));
    let first = actions(&mut neighbours).into_iter().next();
    assert_eq!(first, Some(sent(LINK_ADDRESS, &[20 - fit as u8; 100])), "the newest stay");
}

#[test]
fn the_packets_for_all_neighbours_have_a_cap() {
    let config = Config { pending_in_all: 1000, ..Config::default() };
    let mut neighbours = Neighbours::new(config, HashKey::new([1, 2]));
    let mut refused = 0;
    for last in 0..20 {
        neighbours.resolve(at(1), LINK, address(last));
        refused += usize::from(neighbours.park(LINK, address(last), alloc::vec![0; 100]).is_err());
        assert!(neighbours.pending() <= 1000);
    }
    assert_eq!(refused, 20 - 1000 / (100 + PACKET_COST));
    neighbours.handle_timeout(at(2));
    neighbours.handle_timeout(at(3));
    neighbours.handle_timeout(at(4));
    assert_eq!((neighbours.pending(), neighbours.len()), (0, 0));
}

#[test]
fn strangers_replace_strangers_and_never_those_in_use() {
    let config = Config { entries: 8, ..Config::default() };
    let mut neighbours = Neighbours::new(config, HashKey::new([1, 2]));
    neighbours.resolve(at(1), LINK, address(1));
    neighbours.heard_answer(at(1), LINK, address(1), answer(LINK_ADDRESS, true, true));
    for last in 100..1000 {
        neighbours.heard_question(LINK, address(last), OTHER);
        assert!(neighbours.len() <= 8);
    }
    assert_eq!(neighbours.resolve(at(1), LINK, address(1)), Resolution::LinkAddress(LINK_ADDRESS));
    assert_eq!(neighbours.resolve(at(1), LINK, address(999)), Resolution::LinkAddress(OTHER));
    // Seven that are asked for: none may make room for another.
    for last in 2..8 {
        assert_eq!(neighbours.resolve(at(1), LINK, address(last)), Resolution::Pending);
    }
    assert_eq!(neighbours.resolve(at(1), LINK, address(50)), Resolution::Full);
    neighbours.heard_question(LINK, address(51), OTHER);
    assert_eq!(neighbours.len(), 8);
}
