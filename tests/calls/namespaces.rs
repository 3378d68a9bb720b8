//! Processes of several pid namespaces that share the rendezvous folder, as the containers of one pod do: each has a
//! process 1, and a number says nothing of who has it elsewhere.

use std::env;

use crate::harness::{Case, assert_on_pipe, case, fork, skip};
use crate::sys::{self, Ended, call};

pub(crate) const CASES: &[Case] =
    &[case("another_process_of_that_number_changes_nothing", || match env::var("CALLS_ROLE") {
        Ok(role) => play(&role),
        Err(_) if sys::wait(fork(enter_namespace)) != Ended::Exited(0) => skip("no process namespaces here"),
        Err(_) => (0..5).for_each(|_| serve_beside_a_namesake()),
    })];

/// Process 1 of a namespace serves a connection while another process 1 starts and ends. Then a child of the first one
/// closes its copy of the connection.
fn serve_beside_a_namesake() {
    let (listener, port) = sys::listener(libc::AF_INET);
    sys::set_cloexec(listener, false);
    let server = process_1(&format!("server {listener}"));
    let end = sys::connected(libc::AF_INET, port);
    sys::close(listener).expect("close");
    for _ in 0..100 {
        echo(end);
    }
    assert_on_pipe(end);
    assert_eq!(sys::wait(process_1("namesake")), Ended::Exited(0));
    sys::write_all(end, b"fork");
    for _ in 0..100 {
        echo(end);
    }
    sys::close(end).expect("close");
    assert_eq!(sys::wait(server), Ended::Exited(0));
}

#[track_caller]
fn echo(end: i32) {
    sys::write_all(end, b"ping");
    assert_eq!(sys::read_exact(end, 4), b"ping");
}

fn enter_namespace() {
    call!(libc::unshare(libc::CLONE_NEWPID)).expect("unshare");
}

/// Starts this program again as process 1 of a new namespace; what is returned ends as it does.
fn process_1(role: &str) -> libc::pid_t {
    fork(|| {
        enter_namespace();
        let first = sys::spawn(&sys::own_program(), &[], &[("CALLS_ROLE", role)]);
        assert_eq!(sys::wait(first), Ended::Exited(0));
    })
}

fn play(role: &str) {
    assert_eq!(sys::getpid(), 1);
    let Some(listener) = role.strip_prefix("server ") else { return };
    let end = sys::accept(listener.parse().expect("a number")).expect("accept");
    let mut message = [0; 4];
    while let Ok(length @ 1..) = sys::read(end, &mut message) {
        if &message[..length] == b"fork" {
            let child = fork(|| _ = sys::close(end).expect("close"));
            assert_eq!(sys::wait(child), Ended::Exited(0));
        } else {
            sys::write_all(end, &message[..length]);
        }
    }
}
