//! Descriptors that move: dup2, close and re-use, exec, spawn, vfork, rights, stdio.

use std::ffi::CString;
use std::mem;
use std::{ptr, thread};

use crate::data::Flow;
use crate::harness::{Case, Child, assert_on_pipe, case, dialogue};
use crate::sys::{self, Errno, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("the_lowest_free_number_is_used", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let next = sys::dup(0);
        sys::close(next).expect("close");
        let (c, d) = sys::pair();
        Flow::new(1).write(c, 10_000, 500);
        Flow::new(1).read(d, 10_000, 500);
        // A listener took the first number and gave it back.
        assert_eq!((c, d), (b + 1, b + 2));
        assert_eq!(sys::dup(0), next);
        sys::close(a).expect("close");
        assert_eq!(sys::eventfd(), a);
    }),
    case("a_number_used_again_is_the_new_file", || {
        for round in 0..30 {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, 1000, 100);
            Flow::new(1).read(b, 1000, 100);
            sys::write_all(a, b"unread");
            sys::plug_below(b);
            sys::close(b).expect("close");
            let again = match round % 6 {
                0 => sys::file_with(b"file"),
                1 => {
                    let (read_end, write_end) = sys::pipe();
                    sys::write_all(write_end, b"file");
                    sys::close(write_end).expect("close");
                    read_end
                }
                2 => {
                    let (left, right) = sys::socketpair();
                    sys::write_all(right, b"file");
                    sys::close(right).expect("close");
                    left
                }
                3 => {
                    let fd = sys::eventfd();
                    sys::write_all(fd, &7_u64.to_ne_bytes());
                    let mut value = [0; 8];
                    assert_eq!(sys::read(fd, &mut value), Ok(8));
                    assert_eq!(u64::from_ne_bytes(value), 7);
                    fails(sys::read(fd, &mut value), libc::EAGAIN);
                    assert_eq!(fd, b);
                    sys::close(fd).expect("close");
                    sys::close(a).expect("close");
                    continue;
                }
                4 => {
                    let file = sys::file_with(b"file");
                    assert_eq!(file, b);
                    let path = CString::new(format!("/proc/self/fd/{file}")).expect("a path");
                    let other = call!(libc::open(path.as_ptr(), libc::O_RDONLY)).expect("open") as i32;
                    sys::close(file).expect("close");
                    sys::dup2(other, b).expect("dup2");
                    sys::close(other).expect("close");
                    b
                }
                _ => {
                    // A raw system call, which no library sees.
                    let name = c"raw".as_ptr();
                    let fd = call!(libc::syscall(libc::SYS_memfd_create, name, 0)).expect("memfd") as i32;
                    sys::write_all(fd, b"file");
                    call!(libc::lseek(fd, 0, libc::SEEK_SET)).expect("lseek");
                    fd
                }
            };
            assert_eq!(again, b);
            assert_eq!(sys::read_exact(again, 4), b"file");
            assert_eq!(sys::read(again, &mut [0]), Ok(0));
            sys::close(again).expect("close");
            sys::close(a).expect("close");
        }
    }),
    case("dup2_onto_a_live_socket_ends_it", || {
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            let (c, d) = sys::pair();
            for (x, y) in [(a, b), (c, d)] {
                Flow::new(1).write(x, before, 500);
                Flow::new(1).read(y, before, 500);
            }
            assert_eq!(sys::dup2(c, a), Ok(a as usize));
            assert_eq!(sys::read(b, &mut [0]), Ok(0));
            sys::write_all(a, b"for d");
            assert_eq!(sys::read_exact(d, 5), b"for d");
            sys::close(c).expect("close");
            sys::write_all(a, b"again");
            assert_eq!(sys::read_exact(d, 5), b"again");
            assert_eq!(sys::dup2(a, a), Ok(a as usize));
            fails(sys::dup2(9999, a), libc::EBADF);
            fails(call!(libc::dup3(a, a, 0)), libc::EINVAL);
            sys::write_all(d, b"back");
            assert_eq!(sys::read_exact(a, 4), b"back");
        }
    }),
    case("close_range_and_closefrom", || {
        for way in 0..2 {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, 10_000, 500);
            Flow::new(1).read(b, 10_000, 500);
            call!(libc::fcntl(b, libc::F_DUPFD, 100)).expect("F_DUPFD");
            sys::close(b).expect("close");
            if way == 0 {
                let flag = libc::CLOSE_RANGE_CLOEXEC as i32;
                call!(libc::close_range(100, 200, flag)).expect("close_range");
                sys::write_all(a, b"x");
                sys::until(|| call!(libc::fcntl(100, libc::F_GETFD)) == Ok(1));
                call!(libc::close_range(100, 200, 0)).expect("close_range");
            } else {
                // SAFETY: nothing above 100 is in use.
                unsafe { closefrom(100) };
            }
            fails(call!(libc::fcntl(100, libc::F_GETFD)), libc::EBADF);
            let answer = sys::read(a, &mut [0]);
            assert!(matches!(answer, Ok(0) | Err(Errno(libc::ECONNRESET))), "{answer:?}");
            sys::close(a).expect("close");
        }
        fails(call!(libc::close_range(200, 100, 0)), libc::EINVAL);
    }),
    case("closing_every_number_and_going_on", || {
        // As daemons do: by a loop, in a child that was forked with connections, and in this process itself.
        let close_all = || {
            for fd in 3..1024 {
                let _ = sys::close(fd);
            }
        };
        let use_some = || {
            let (a, b) = sys::pair();
            Flow::new(2).write(a, 10_000, 500);
            Flow::new(2).read(b, 10_000, 500);
            (a, b)
        };
        let (a, b) = use_some();
        sys::write_all(a, b"unread");
        Child::run(|| {
            close_all();
            assert_eq!(use_some(), (4, 5));
        })
        .join();
        assert_eq!(sys::read_exact(b, 6), b"unread");
        for _ in 0..3 {
            close_all();
            let (a, b) = use_some();
            assert_eq!((a, b), (4, 5));
            sys::write_all(a, b"unread");
            assert_on_pipe(a);
        }
    }),
    case("close_in_a_vfork_child_does_not_disturb_the_parent", || {
        let (a, b) = sys::pair();
        sys::plug_below(b);
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            for _ in 0..10 {
                assert_eq!(vfork_and_close(a, b), sys::Ended::Exited(0));
                Flow::new(2).write(a, 1000, 100);
                Flow::new(2).read(b, 1000, 100);
                Flow::new(2).write(b, 1000, 100);
                Flow::new(2).read(a, 1000, 100);
            }
        }
        assert_on_pipe(a);
    }),
    dialogue(
        "a_program_executed_on_the_socket_goes_on_with_the_stream",
        |end| {
            let mut out = Flow::new(1);
            out.write(end.fd, 100_000, 5000);
            Flow::new(9).read(end.fd, 100_000, 5000);
            let mut back = Flow::new(1);
            back.position = 100_000;
            thread::scope(|scope| {
                let fd = end.fd;
                scope.spawn(move || {
                    out.write(fd, 1 << 20, 5000);
                    sys::shutdown(fd, libc::SHUT_WR).expect("shutdown");
                });
                assert_eq!(back.read_to_end(end.fd, 5000), 1 << 20, "cat sends all back");
            });
        },
        |end| {
            Flow::new(1).read(end.fd, 100_000, 5000);
            Flow::new(9).write(end.fd, 100_000, 5000);
            let child = Child::run(|| {
                sys::dup2(end.fd, 0).expect("dup2");
                sys::dup2(end.fd, 1).expect("dup2");
                sys::execute(c"/bin/cat", &[], &sys::environment_with(&[]));
            });
            end.close();
            child.join();
        },
    ),
    case("posix_spawn_leaves_the_parents_sockets", || {
        let (a, b) = sys::pair();
        for before in [0, 10_000] {
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            assert_eq!(spawn_writing_to(a, b"spawned"), sys::Ended::Exited(0));
            assert_eq!(sys::read_exact(b, 7), b"spawned");
            Flow::new(2).write(a, 1000, 100);
            Flow::new(2).read(b, 1000, 100);
        }
    }),
    case("a_failed_exec_changes_nothing", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let argv = [c"nothing".as_ptr(), ptr::null()];
        fails(call!(libc::execv(c"/nonexistent/program".as_ptr(), argv.as_ptr())), libc::ENOENT);
        Flow::new(2).write(a, 10_000, 500);
        Flow::new(2).read(b, 10_000, 500);
    }),
    case("rights_pass_a_connection_to_another_process", || {
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            let (left, right) = sys::socketpair();
            let child = Child::run(|| {
                sys::close(a).expect("close");
                sys::close(b).expect("close");
                let fd = receive_descriptor(right);
                Flow::new(2).read(fd, 300_000, 5000);
                Flow::new(3).write(fd, 300_000, 5000);
                assert_eq!(sys::read(fd, &mut [0]), Ok(0));
            });
            send_descriptor(left, b);
            sys::close(b).expect("close");
            Flow::new(2).write(a, 300_000, 5000);
            Flow::new(3).read(a, 300_000, 5000);
            sys::close(a).expect("close");
            child.join();
        }
    }),
    case("rights_within_one_process_give_a_twin", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let (left, right) = sys::socketpair();
        send_descriptor(left, b);
        let twin = receive_descriptor(right);
        let (mut out, mut back) = (Flow::new(2), Flow::new(2));
        for _ in 0..50 {
            out.write(a, 1000, 1000);
            back.read(b, 500, 100);
            back.read(twin, 500, 100);
        }
        sys::close(b).expect("close");
        out.write(a, 1000, 1000);
        back.read(twin, 1000, 100);
    }),
    dialogue(
        "stdio_on_a_socket",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            sys::write_all(end.fd, b"first line\nsecond line\n");
            assert_eq!(sys::read_exact(end.fd, 10), b"reply 42\nx");
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
        },
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            let copy = sys::dup(end.fd);
            // SAFETY: a stream of our own, used by this thread only, with buffers that are large enough.
            unsafe {
                let stream = libc::fdopen(copy, c"r+".as_ptr());
                assert!(!stream.is_null());
                let mut line = [0; 100];
                assert!(!libc::fgets(line.as_mut_ptr(), 100, stream).is_null());
                assert_eq!(std::ffi::CStr::from_ptr(line.as_ptr()), c"first line\n");
                assert!(!libc::fgets(line.as_mut_ptr(), 100, stream).is_null());
                assert_eq!(std::ffi::CStr::from_ptr(line.as_ptr()), c"second line\n");
                libc::fprintf(stream, c"reply %d\n".as_ptr(), 42);
                assert_eq!(libc::fflush(stream), 0);
                assert_eq!(dprintf(end.fd, c"%s".as_ptr(), c"x".as_ptr()), 1);
                assert_eq!(libc::fclose(stream), 0);
            }
            fails(call!(libc::fcntl(copy, libc::F_GETFD)), libc::EBADF);
        },
    ),
    dialogue(
        "a_number_closed_by_stdio_and_used_again",
        |end| {
            Flow::new(1).write(end.fd, 10_000, 500);
            assert_eq!(sys::read(end.fd, &mut [0]), Ok(0));
        },
        |end| {
            Flow::new(1).read(end.fd, 10_000, 500);
            sys::plug_below(end.fd);
            // SAFETY: the stream is used once and closed.
            unsafe { assert_eq!(libc::fclose(libc::fdopen(end.fd, c"r+".as_ptr())), 0) };
            end.forget();
            let file = sys::file_with(b"file");
            assert_eq!(file, end.fd);
            assert_eq!(sys::read_exact(file, 4), b"file");
            sys::close(file).expect("close");
        },
    )
    .between_processes(),
    case("close_on_exec_is_kept", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        let program = c"/bin/sh";
        sys::set_cloexec(b, true);
        let script = CString::new(format!("test ! -e /proc/self/fd/{b}")).expect("a script");
        assert_eq!(sys::wait(sys::spawn(program, &[c"-c", &script], &[])), sys::Ended::Exited(0));
        Flow::new(2).write(a, 10_000, 500);
        Flow::new(2).read(b, 10_000, 500);
    }),
];

unsafe extern "C" {
    fn closefrom(lowest: i32);
    fn dprintf(fd: i32, format: *const libc::c_char, ...) -> i32;
}

/// In a function of its own: a vfork child runs on its parent's stack.
#[inline(never)]
fn vfork_and_close(a: i32, b: i32) -> sys::Ended {
    let null = c"/dev/null".as_ptr();
    // SAFETY: the child makes only system calls and leaves with `_exit`.
    #[expect(deprecated, reason = "vfork is the subject")]
    let pid = unsafe { libc::vfork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            let ok = libc::close(a) == 0 && libc::open(null, libc::O_RDONLY) == a && libc::dup2(a, b) == b;
            libc::_exit(if ok { 0 } else { 1 })
        }
    }
    sys::wait(pid)
}

/// Spawns `echo` with its output on the socket.
fn spawn_writing_to(fd: i32, text: &[u8]) -> sys::Ended {
    let mut actions = mem::MaybeUninit::uninit();
    let text = CString::new(text).expect("no zero byte");
    let argv = [c"printf".as_ptr().cast_mut(), text.as_ptr().cast_mut(), ptr::null_mut()];
    let variables = sys::environment_with(&[]);
    let envp: Vec<_> =
        variables.iter().map(|each| each.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
    let mut pid = 0;
    // SAFETY: the actions are initialised first; both arrays end with a null pointer.
    unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        libc::posix_spawn_file_actions_adddup2(actions.as_mut_ptr(), fd, 1);
        libc::posix_spawn_file_actions_addclose(actions.as_mut_ptr(), fd);
        let program = c"/usr/bin/printf".as_ptr();
        let actions = actions.as_ptr();
        let failed = libc::posix_spawn(&mut pid, program, actions, ptr::null(), argv.as_ptr(), envp.as_ptr());
        assert_eq!(failed, 0);
    }
    sys::wait(pid)
}

pub(crate) fn send_descriptor(over: i32, fd: i32) {
    let mut control = [0_u64; 4];
    let mut pieces = vec![b"!".to_vec()];
    let mut vectors = sys::iovecs(&mut pieces);
    let mut message = sys::message(&mut vectors);
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the control buffer has room for one descriptor.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
    }
    assert_eq!(call!(libc::sendmsg(over, &message, 0)), Ok(1));
}

pub(crate) fn receive_descriptor(over: i32) -> i32 {
    let mut control = [0_u64; 4];
    let mut pieces = vec![vec![0]];
    let mut vectors = sys::iovecs(&mut pieces);
    let mut message = sys::message(&mut vectors);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    assert_eq!(call!(libc::recvmsg(over, &mut message, libc::MSG_CMSG_CLOEXEC)), Ok(1));
    // SAFETY: one control message with one descriptor, as the other side sent it.
    unsafe { libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&message)).cast::<i32>().read_unaligned() }
}
