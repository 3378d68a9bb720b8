//! The questions that a Rust program may ask about its connections.

mod common;
#[path = "../examples/connection.rs"]
mod example;

use sockshim::abi::recv::sockshim_read;
use sockshim::abi::send::sockshim_write;
use sockshim::abi::socket::{
    sockshim_accept, sockshim_bind, sockshim_connect, sockshim_listen, sockshim_socket,
};
use sockshim::{Counters, Path, Reason};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

/// Set in the process that a test starts: itself, with another environment.
const INSIDE: &str = "SOCKSHIM_TEST_INSIDE";

#[test]
fn the_example_runs_on_a_pipe_when_it_is_preloaded() {
    if std::env::var_os(INSIDE).is_some() {
        return example::main().unwrap();
    }
    let library = common::libsockshim();
    let output = again("the_example_runs_on_a_pipe_when_it_is_preloaded", |command| {
        command.env("LD_PRELOAD", library);
    });
    for line in [
        "connected: Host, not enough transferred yet",
        "transferred: Pipe, on a pipe",
        "pinned: Host, pinned by the program",
    ] {
        assert!(output.contains(line), "{line:?} is missing in {output}");
    }
}

#[test]
fn the_example_runs_on_the_kernel_when_it_is_not_preloaded() {
    if std::env::var_os(INSIDE).is_some() {
        return example::main().unwrap();
    }
    let output = again("the_example_runs_on_the_kernel_when_it_is_not_preloaded", |_| ());
    assert_eq!(output.matches(": Host, this program does not run on sockshim").count(), 3, "{output}");
}

#[test]
fn a_linked_copy_answers_for_its_own_sockets() {
    if std::env::var_os(INSIDE).is_none() {
        again("a_linked_copy_answers_for_its_own_sockets", |command| {
            command.env("SOCKSHIM_UPGRADE_AFTER", "0");
        });
        return;
    }
    let (_listener, client, server) = connection();
    // The server's first read tells the client that it knows about pipes.
    transfer(&client, &server);
    let first = sockshim::counters(client.as_fd());
    transfer(&client, &server);
    assert_eq!(sockshim::path_of(client.as_fd()), Path::Pipe);
    assert_eq!(sockshim::reason_of(client.as_fd()), Some(Reason::Pipe));
    let second = sockshim::counters(client.as_fd());
    assert_eq!(
        (second.bytes_sent, second.kernel_bytes_sent),
        (first.bytes_sent + 4, first.kernel_bytes_sent)
    );
    assert!(sockshim::counters(server.as_fd()).bytes_received >= 4);
    assert!(sockshim::process_counters().bytes_sent >= 4);

    sockshim::pin(client.as_fd());
    transfer(&client, &server);
    assert_eq!(sockshim::path_of(client.as_fd()), Path::Host);
    assert_eq!(sockshim::reason_of(client.as_fd()), Some(Reason::PinnedByProgram));
    let third = sockshim::counters(client.as_fd());
    assert_eq!(third.kernel_bytes_sent, second.kernel_bytes_sent + 4);

    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(sockshim::reason_of(file.as_fd()), Some(Reason::NotTcp));
    assert_eq!(sockshim::counters(file.as_fd()), Counters::default());
}

/// Runs one test of this executable in a process of its own, without sockshim but for what `change` says, and returns
/// what it prints.
fn again(test: &str, change: impl FnOnce(&mut Command)) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").env_remove("LD_PRELOAD");
    change(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A listener and both ends of a connection, made by the library's functions. They stay open: a close by std is past the
/// library here.
fn connection() -> (OwnedFd, OwnedFd, OwnedFd) {
    // A free port; the listener itself is not std's, because the library must see it being made.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    let (address, length) = ((&raw const address).cast(), size_of_val(&address) as u32);
    let listener = owned(|| {
        // SAFETY: the call touches no memory.
        unsafe { sockshim_socket(libc::AF_INET, libc::SOCK_STREAM, 0) }
    });
    // SAFETY: the address is there, and that long.
    assert_eq!(unsafe { sockshim_bind(listener.as_raw_fd(), address, length) }, 0);
    // SAFETY: the call touches no memory.
    assert_eq!(unsafe { sockshim_listen(listener.as_raw_fd(), 1) }, 0);
    let client = owned(|| {
        // SAFETY: the call touches no memory.
        unsafe { sockshim_socket(libc::AF_INET, libc::SOCK_STREAM, 0) }
    });
    // SAFETY: as for bind.
    assert_eq!(unsafe { sockshim_connect(client.as_raw_fd(), address, length) }, 0);
    let server = owned(|| {
        // SAFETY: no address is asked for.
        unsafe { sockshim_accept(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut()) }
    });
    (listener, client, server)
}

fn owned(make: impl FnOnce() -> i32) -> OwnedFd {
    let fd = make();
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Four bytes from `from` to `to`.
fn transfer(from: &OwnedFd, to: &OwnedFd) {
    let mut received = [0; 4];
    // SAFETY: four bytes are there.
    assert_eq!(unsafe { sockshim_write(from.as_raw_fd(), b"four".as_ptr().cast(), 4) }, 4);
    // SAFETY: there is room for four bytes.
    assert_eq!(unsafe { sockshim_read(to.as_raw_fd(), received.as_mut_ptr().cast(), 4) }, 4);
    assert_eq!(&received, b"four");
}
