//! Programs that once went differently, by hand.

use crate::call::{Polling, Reading, Writing};
use crate::program::{At, Link, Patience, Program, Step, Target};

/// Name and program, with all connections between two processes or within one.
pub(crate) fn programs() -> Vec<(&'static str, Program)> {
    vec![
        ("urgent_data_before_anything_else", within(vec![Step::Urgent(CLIENT), send(CLIENT, 1)])),
        (
            "poll_after_a_write_to_an_end_that_is_gone",
            within(vec![Step::Close(CLIENT), send(CLIENT, 1), poll(CLIENT, 0)]),
        ),
        (
            "exec_with_bytes_unread_in_both_lanes",
            within(vec![send(CLIENT, 1), send(CLIENT, 300), send(CLIENT, 20), Step::Exec(0)]),
        ),
        (
            "preadv2_of_nothing",
            within(vec![Step::Read(CLIENT, Reading::Preadv2, libc::MSG_DONTWAIT, 0), send(CLIENT, 0)]),
        ),
        (
            "a_write_before_it_is_known_that_the_other_end_came_and_went",
            within(vec![Step::Close(SERVER), send(CLIENT, 1), poll(CLIENT, 0)]),
        ),
        (
            "close_with_an_urgent_byte_unread",
            within(vec![Step::Urgent(CLIENT), Step::Close(SERVER), Step::Names(CLIENT)]),
        ),
        (
            "sendfile_of_more_than_the_ring_takes",
            within(vec![send(CLIENT, 1), Step::SendFile(CLIENT, 4097, false), Step::Drain(SERVER)]),
        ),
        (
            "poll_of_a_set_that_wants_nothing",
            within(vec![send(SERVER, 1), Step::NewSet(0), add(CLIENT, 0), Step::PollSet(0, 0)]),
        ),
        (
            "recvmmsg_tells_a_waiting_error_first",
            within(vec![
                Step::Close(CLIENT),
                send(CLIENT, 1),
                Step::Read(CLIENT, Reading::Recvmmsg, libc::MSG_DONTWAIT, 1),
            ]),
        ),
        (
            "bytes_for_an_end_that_has_shut_its_reading",
            between(vec![send(CLIENT, 1), send(CLIENT, 1), Step::Shutdown(SERVER, 2), send(CLIENT, 1)]),
        ),
        (
            "two_names_over_exec_with_bytes_unread",
            within(vec![
                send(CLIENT, 75),
                receive(SERVER, 100),
                Step::Dup(CLIENT, true),
                Step::Dup(SERVER, true),
                send(CLIENT, 49),
                send(SERVER, 50),
                Step::Exec(0),
                Step::Unread(SERVER),
                receive(At { socket: 3, thread: 0 }, 20),
                Step::Close(At { socket: 3, thread: 0 }),
                Step::Close(At { socket: 2, thread: 0 }),
            ]),
        ),
        (
            "peek_that_waits_for_all_in_the_kernel_lane",
            within(vec![
                Step::Read(CLIENT, Reading::Recv, libc::MSG_PEEK | libc::MSG_WAITALL, 19),
                Step::Splice(SERVER, 1),
                Step::Splice(SERVER, 10),
                Step::Splice(SERVER, 10),
            ]),
        ),
        (
            "peek_that_waits_for_all_in_two_lanes",
            within(vec![
                Step::Read(SERVER, Reading::Recv, libc::MSG_PEEK | libc::MSG_WAITALL, 5239),
                Step::Write(At { socket: 0, thread: 1 }, Writing::Send, 0, 432),
                Step::Write(At { socket: 0, thread: 1 }, Writing::Send, 0, 4442),
                Step::Write(At { socket: 0, thread: 1 }, Writing::Send, 0, 365),
            ]),
        ),
        (
            "a_write_after_both_directions_were_shut_at_the_other_end",
            within(vec![
                Step::Shutdown(SERVER, 2),
                Step::Flood(At { socket: 0, thread: 2 }),
                Step::Close(At { socket: 0, thread: 1 }),
            ]),
        ),
        (
            "the_other_ends_name_after_the_ends_of_both_directions",
            within(vec![
                Step::Close(CLIENT),
                Step::Shutdown(At { socket: 0, thread: 0 }, 1),
                Step::Names(At { socket: 0, thread: 0 }),
            ]),
        ),
        (
            "a_read_after_the_end_of_a_process_that_was_killed",
            between(vec![
                Step::Read(CLIENT, Reading::Read, 0, 12),
                send(SERVER, 20),
                Step::End { process: 1, killed: true },
                Step::Drain(CLIENT),
                Step::Read(CLIENT, Reading::Read, 0, 112),
            ]),
        ),
        (
            "bytes_for_an_end_that_is_passed_on",
            Program {
                connections: vec![
                    Link { client: 1, server: 0, v6: false },
                    Link { client: 0, server: 0, v6: false },
                ],
                steps: vec![send(At { socket: 2, thread: 0 }, 9820), Step::Pass(At { socket: 3, thread: 0 })],
            },
        ),
        (
            "more_to_come_in_the_kernel_lane",
            within(vec![
                send(CLIENT, 2),
                send(CLIENT, 2),
                Step::Shutdown(SERVER, 0),
                Step::Write(CLIENT, Writing::Send, libc::MSG_MORE, 1),
            ]),
        ),
        (
            "exec_after_a_forked_child_was_killed",
            within(vec![
                send(CLIENT, 1),
                send(CLIENT, 30),
                Step::Fork(0),
                Step::End { process: 1, killed: true },
                Step::Exec(0),
            ]),
        ),
        (
            "select_that_asks_for_urgent_data_of_a_connection_that_is_reset",
            within(vec![
                Step::DupOnto(CLIENT, 1, None),
                Step::Poll(CLIENT, Polling::Select, vec![(0, libc::POLLPRI)], Patience::Endless),
                send(CLIENT, 1),
            ]),
        ),
        (
            "a_read_of_all_stops_at_the_urgent_mark",
            within(vec![
                send(SERVER, 1),
                Step::Urgent(SERVER),
                Step::Read(CLIENT, Reading::Recv, libc::MSG_WAITALL, 2),
            ]),
        ),
        (
            "recvmsg_from_a_connection_that_has_just_gone_back",
            within(vec![
                send(CLIENT, 10),
                receive(SERVER, 10),
                Step::Urgent(CLIENT),
                Step::Read(SERVER, Reading::Recvmsg, libc::MSG_DONTWAIT, 1),
                Step::Close(CLIENT),
                Step::Read(CLIENT, Reading::Recvmsg, libc::MSG_DONTWAIT, 1),
            ]),
        ),
        (
            "a_sleeper_hears_of_the_end_of_a_process_that_shares_its_socket",
            Program {
                connections: vec![Link { client: 1, server: 0, v6: true }],
                steps: vec![
                    Step::Pass(SERVER),
                    Step::Read(SERVER, Reading::Read, 0, 1016),
                    Step::Write(CLIENT, Writing::Sendto, 0, 451),
                    Step::Write(SERVER, Writing::Sendmsg, 0, 569),
                    Step::Read(SERVER, Reading::Read, 0, 2761),
                    Step::Write(CLIENT, Writing::Sendmsg, libc::MSG_DONTWAIT, 0),
                    Step::End { process: 1, killed: false },
                ],
            },
        ),
    ]
}

/// The first descriptor is the client's, the next the server's; what is closed is no longer counted.
const CLIENT: At = At { socket: 0, thread: 0 };
const SERVER: At = At { socket: 1, thread: 0 };

fn within(steps: Vec<Step>) -> Program {
    Program { connections: vec![Link { client: 0, server: 0, v6: false }], steps }
}

fn between(steps: Vec<Step>) -> Program {
    Program { connections: vec![Link { client: 0, server: 1, v6: false }], steps }
}

fn send(at: At, length: usize) -> Step {
    Step::Write(at, Writing::Write, 0, length)
}

fn receive(at: At, length: usize) -> Step {
    Step::Read(at, Reading::Recv, libc::MSG_DONTWAIT, length)
}

fn poll(at: At, events: i16) -> Step {
    Step::Poll(at, Polling::Poll, vec![(at.socket, events)], Patience::None)
}

/// Registers in the first set.
fn add(at: At, events: i32) -> Step {
    control(at, libc::EPOLL_CTL_ADD, events)
}

fn control(at: At, operation: i32, events: i32) -> Step {
    Step::Control { set: 0, target: Target::Socket(at.socket), operation, events }
}
