//! A connection as standard input and output, under stdio, and in processes with tight limits.

use std::ffi::CStr;
use std::ptr;

use libc::c_char;

use crate::data::Flow;
use crate::harness::{Case, Child, case};
use crate::sys::raw::{BOTH, Way, zeroed};
use crate::sys::{self, Answer, call, fails};

pub(crate) const CASES: &[Case] = &[
    case("stdio_writes_to_a_connection_that_became_standard_output", || {
        for before in [0, 10_000] {
            serve(
                before,
                |fd| {
                    sys::dup2(fd, 1).expect("dup2");
                    // SAFETY: the stream is libc's own, and nobody else uses it here.
                    unsafe {
                        libc::printf(c"hello %d\n".as_ptr(), 42);
                        libc::fflush(stdout);
                    }
                    sys::write_all(fd, b"between\n");
                    // SAFETY: as above.
                    unsafe {
                        libc::puts(c"bye".as_ptr());
                        libc::fflush(stdout);
                    }
                },
                |a| {
                    let mut text = Vec::new();
                    let mut buffer = [0; 100];
                    while let Ok(count @ 1..) = sys::read(a, &mut buffer) {
                        text.extend_from_slice(&buffer[..count]);
                    }
                    assert_eq!(text, b"hello 42\nbetween\nbye\n");
                },
            );
        }
    }),
    case("stdio_reads_from_a_connection_that_became_standard_input", || {
        for before in [0, 10_000] {
            serve(
                before,
                |fd| {
                    sys::dup2(fd, 0).expect("dup2");
                    sys::dup2(fd, 2).expect("dup2");
                    // SAFETY: C strings, and a buffer of that size.
                    unsafe {
                        let mut line = [0 as c_char; 100];
                        // The line is written once this end says so.
                        libc::perror(c"ready".as_ptr());
                        assert!(!libc::fgets(line.as_mut_ptr(), 100, stdin).is_null());
                        assert_eq!(CStr::from_ptr(line.as_ptr()), c"a line\n");
                    }
                    assert_eq!(sys::read_exact(0, 4), b"rest");
                },
                |a| {
                    let mut text = Vec::new();
                    while !text.ends_with(b"\n") {
                        text.extend(sys::read_exact(a, 1));
                    }
                    assert!(text.starts_with(b"ready"));
                    sys::write_all(a, b"a line\n");
                    assert_eq!(sys::poll_one(a, libc::POLLIN, 50) & libc::POLLERR, 0);
                    sys::write_all(a, b"rest");
                },
            );
        }
    }),
    case("a_shell_command_uses_the_standard_descriptors", || {
        serve(
            10_000,
            |fd| {
                sys::dup2(fd, 0).expect("dup2");
                sys::dup2(fd, 1).expect("dup2");
                sys::write_all(1, b"go");
                // SAFETY: a C string.
                assert_eq!(unsafe { libc::system(c"read line; echo \"got $line\"".as_ptr()) }, 0);
                sys::write_all(1, b"after\n");
            },
            |a| {
                assert_eq!(sys::read_exact(a, 2), b"go");
                sys::write_all(a, b"this\n");
                assert_eq!(sys::read_exact(a, 15), b"got this\nafter\n");
            },
        );
    }),
    case("daemon_leaves_other_descriptors", || {
        serve(
            10_000,
            |fd| {
                // SAFETY: the child of a single-threaded process goes on.
                assert_eq!(unsafe { daemon(1, 0) }, 0);
                sys::write_all(fd, b"from the daemon");
                assert_eq!(sys::read_exact(fd, 4), b"stop");
            },
            |a| {
                assert_eq!(sys::read_exact(a, 15), b"from the daemon");
                sys::write_all(a, b"stop");
                assert_eq!(sys::read(a, &mut [0]), Ok(0));
            },
        );
    }),
    case("freopen_over_a_connection", || {
        serve(
            10_000,
            |fd| {
                sys::dup2(fd, 1).expect("dup2");
                // SAFETY: C strings; the stream is libc's own.
                unsafe {
                    assert!(!libc::freopen(c"/dev/null".as_ptr(), c"w".as_ptr(), stdout).is_null());
                    libc::puts(c"nobody sees this".as_ptr());
                    libc::fflush(stdout);
                }
                sys::write_all(fd, b"seen");
            },
            |a| {
                assert_eq!(sys::read_exact(a, 4), b"seen");
                assert_eq!(sys::read(a, &mut [0]), Ok(0));
            },
        );
    }),
    case("a_terminal_in_the_place_of_a_connection", || {
        serve(
            10_000,
            |fd| {
                let mut terminal = 0;
                // SAFETY: the pointers are valid or null.
                let child =
                    unsafe { forkpty(&mut terminal, ptr::null_mut(), ptr::null_mut(), ptr::null_mut()) };
                assert!(child >= 0);
                if child == 0 {
                    // Both: the terminal is there, and the connection still works.
                    sys::write_all(1, b"t");
                    sys::write_all(fd, b"from the terminal's process");
                    // SAFETY: always allowed.
                    unsafe { libc::_exit(0) };
                }
                assert_eq!(sys::read_exact(terminal, 1), b"t");
                assert_eq!(sys::wait(child), sys::Ended::Exited(0));
                sys::write_all(fd, b", and from its parent");
            },
            |a| {
                assert_eq!(sys::read_exact(a, 48), b"from the terminal's process, and from its parent");
            },
        );
    }),
    case("descriptors_run_out", || {
        let limit = libc::rlimit { rlim_cur: 40, rlim_max: 40 };
        call!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit)).expect("setrlimit");
        let (listener, port) = sys::listener(libc::AF_INET);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let client = loop {
            let fd = call!(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0)).map(|fd| fd as i32);
            let Ok(fd) = fd else { break fd };
            sys::connect(fd, &sys::Address::loopback(libc::AF_INET, port)).expect("connect");
            match sys::accept(listener) {
                Ok(server) => {
                    a.push(fd);
                    b.push(server);
                }
                Err(error) => {
                    assert_eq!(error.0, libc::EMFILE);
                    sys::close(fd).expect("close");
                    break Err(error);
                }
            }
        };
        fails(client, libc::EMFILE);
        assert!(a.len() > 10);
        // With every number taken, or but one, everything still works.
        while call!(libc::dup(0)).is_ok() {}
        for round in 0..2 {
            for (a, b) in a.iter().zip(&b) {
                Flow::new(round).write(*a, 20_000, 1000);
                Flow::new(round).read(*b, 20_000, 1000);
                Flow::new(round).write(*b, 20_000, 1000);
                Flow::new(round).read(*a, 20_000, 1000);
            }
            let _ = sys::close(a[0]);
            a.remove(0);
            assert_eq!(sys::read(b.remove(0), &mut [0]), Ok(0));
        }
    }),
    case("address_space_runs_out", || {
        let mut pairs = vec![sys::pair()];
        Flow::new(1).bytes(1);
        let used = std::fs::read_to_string("/proc/self/statm").expect("/proc");
        let pages: u64 = used.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
        let most = pages * 4096 + (8 << 20);
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        call!(libc::setrlimit(libc::RLIMIT_AS, &limit)).expect("setrlimit");
        for _ in 0..20 {
            pairs.push(sys::pair());
        }
        for (round, (a, b)) in pairs.iter().enumerate() {
            Flow::new(round).write(*a, 20_000, 1000);
            Flow::new(round).read(*b, 20_000, 1000);
            Flow::new(round).write(*b, 20_000, 1000);
            Flow::new(round).read(*a, 20_000, 1000);
        }
    }),
    case("after_chroot_and_without_privileges", || {
        if sys::getuid() != 0 {
            crate::harness::skip("only root may do that");
        }
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        call!(libc::chdir(c"/proc".as_ptr())).expect("chdir");
        call!(libc::chroot(c"/proc".as_ptr())).expect("chroot");
        let (c, d) = sys::pair();
        call!(libc::setgid(65534)).expect("setgid");
        call!(libc::setuid(65534)).expect("setuid");
        let (e, f) = sys::pair();
        for (round, (a, b)) in [(a, b), (c, d), (e, f)].into_iter().enumerate() {
            Flow::new(round).write(a, 300_000, 1000);
            Flow::new(round).read(b, 300_000, 1000);
            Flow::new(round).write(b, 300_000, 1000);
            Flow::new(round).read(a, 300_000, 1000);
            sys::close(a).expect("close");
            assert_eq!(sys::read(b, &mut [0]), Ok(0));
        }
    })
    .within_seconds(120),
    case("select_with_descriptors_above_1024", || {
        let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
        call!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit)).expect("setrlimit");
        let (a, low) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(low, 10_000, 500);
        let b = call!(libc::fcntl(low, libc::F_DUPFD, 3000)).expect("F_DUPFD") as i32;
        sys::close(low).expect("close");
        let mut set = [0_u64; 4096 / 64];
        let has = |set: &[u64], fd: i32| set[fd as usize / 64] >> (fd % 64) & 1 == 1;
        for round in 0..20 {
            sys::write_all(a, b"x");
            set[b as usize / 64] = 1 << (b % 64);
            let null = ptr::null_mut();
            // More than a second of microseconds is as good as any time.
            let mut time = libc::timeval { tv_sec: 100, tv_usec: 5_000_000 };
            let at = set.as_mut_ptr().cast();
            let answer = match round % 2 {
                0 => call!(libc::select(b + 1, at, null, null, &mut time)),
                _ => call!(libc::pselect(b + 1, at, null, null, ptr::null(), ptr::null())),
            };
            assert_eq!(answer, Ok(1));
            assert!(has(&set, b));
            assert_eq!(sys::read_exact(b, 1), b"x");
        }
        let mut time = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        set[b as usize / 64] = 1 << (b % 64);
        let null = ptr::null_mut();
        assert_eq!(call!(libc::select(b + 1, set.as_mut_ptr().cast(), null, null, &mut time)), Ok(0));
        assert!(!has(&set, b));
    }),
    case("a_slow_writer_does_not_stretch_a_time_out", || {
        // The time-out is the whole call's, however many bytes come meanwhile.
        for before in [0, 10_000] {
            let (a, b) = sys::pair();
            Flow::new(1).write(a, before, 500);
            Flow::new(1).read(b, before, 500);
            sys::timeout(b, libc::SO_RCVTIMEO, 150);
            let done = std::sync::atomic::AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        sys::write_all(a, b".");
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                });
                let count = sys::recv(b, &mut [0; 4000], libc::MSG_WAITALL).expect("recv");
                done.store(true, std::sync::atomic::Ordering::SeqCst);
                assert!((1..4000).contains(&count), "{count}");
            });
        }
    }),
    case("requests_of_every_kind", || {
        let requests = [
            libc::FIONREAD as u32,
            libc::TIOCOUTQ as u32,
            0x894b, // SIOCOUTQNSD
            0x8905, // SIOCATMARK
            libc::FIOCLEX as u32,
            libc::FIONCLEX as u32,
            libc::FIONBIO as u32,
            libc::TCGETS as u32,
            libc::TIOCGWINSZ as u32,
            libc::TIOCGPGRP as u32,
            0x5460, // FIOQSIZE
            2,      // FIGETBSZ
            0x8903, // FIOGETOWN
            0x8904, // SIOCGPGRP
            0x8906, // SIOCGSTAMP
            0x8907, // SIOCGSTAMPNS
            0x8910, // SIOCGIFNAME
            0x8912, // SIOCGIFCONF
            0x8913, // SIOCGIFFLAGS
            0x8933, // SIOCGIFINDEX
            0x89e0, // SIOCPROTOPRIVATE
            0xdead_0000,
        ];
        for before in [0, 300] {
            for request in requests {
                let [library, past] = BOTH.map(|way| {
                    let (a, b) = way.pair(libc::AF_INET);
                    way.send(a, &vec![1; before], 0).expect("send");
                    if before > 0 {
                        assert_eq!(way.poll(b, libc::POLLIN, -1), libc::POLLIN);
                    }
                    let mut room: [u8; 64] = zeroed();
                    room[..3].copy_from_slice(b"lo\0");
                    let answer = way.ioctl(b, request, room.as_mut_ptr().addr());
                    let flags = [libc::F_GETFL, libc::F_GETFD].map(|get| way.fcntl(b, get, 0));
                    way.close(a);
                    way.close(b);
                    (answer, room, flags)
                });
                assert_eq!(library, past, "request {request:#x} with {before} bytes");
            }
        }
    }),
    case("commands_of_every_kind", || {
        for command in (0..20).chain(1024..1045) {
            for argument in [0, 1, 5, 2048, usize::MAX] {
                // What waits for a lock, and what makes new descriptors, is looked at elsewhere.
                if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) && argument < 3000 {
                    continue;
                }
                let look = |way: Way| -> (Answer, [Answer; 5], bool) {
                    let (a, b) = way.pair(libc::AF_INET);
                    let answer = way.fcntl(b, command, argument);
                    let gets = [libc::F_GETFL, libc::F_GETFD, libc::F_GETOWN, 11, libc::F_GETLEASE];
                    let told = gets.map(|get| way.fcntl(b, get, 0));
                    way.send(a, b"x", 0).expect("send");
                    let arrives = way.poll(b, libc::POLLIN, -1) == libc::POLLIN;
                    way.close(a);
                    way.close(b);
                    (answer, told, arrives)
                };
                assert_eq!(look(Way::Library), look(Way::Past), "command {command} with {argument:#x}");
            }
        }
    }),
];

/// A child works on one end of a connection, this process on the other.
#[track_caller]
fn serve(before: usize, child: impl FnOnce(i32), peer: impl FnOnce(i32)) {
    let (a, b) = sys::pair();
    Flow::new(1).write(a, before, 500);
    Flow::new(1).read(b, before, 500);
    let child = Child::run(|| {
        sys::close(a).expect("close");
        child(b);
    });
    sys::close(b).expect("close");
    peer(a);
    sys::close(a).expect("close");
    child.join();
}

unsafe extern "C" {
    static stdin: *mut libc::FILE;
    static stdout: *mut libc::FILE;
    fn daemon(nochdir: i32, noclose: i32) -> i32;
    fn forkpty(
        terminal: *mut i32,
        name: *mut c_char,
        settings: *mut libc::termios,
        size: *mut libc::winsize,
    ) -> libc::pid_t;
}
