//! Programs that get a connection with bytes unread: with sockshim, without it, by every kind of exec.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::data::Flow;
use crate::harness::{Case, Child, case, fork};
use crate::sys::{self, call};

pub(crate) const CASES: &[Case] = &[
    case("unread_bytes_reach_a_program_with_the_environment", || {
        for start in STARTS {
            hand_on(|fd| {
                standard(fd);
                let variables = sys::environment_with(&[]);
                let envp: Vec<_> = variables.iter().map(|each| each.as_ptr()).chain([ptr::null()]).collect();
                start(envp.as_ptr());
            });
        }
    }),
    case("unread_bytes_reach_a_program_without_an_environment", || {
        for start in STARTS {
            hand_on(|fd| {
                standard(fd);
                start([ptr::null()].as_ptr());
            });
        }
    }),
    case("unread_bytes_reach_a_program_after_the_environment_was_cleared", || {
        let starts: [fn(); 4] = [
            // SAFETY: C strings, and a null at the end of each list.
            || unsafe { _ = libc::execv(CAT.as_ptr(), ARGUMENTS.as_ptr().cast()) },
            || unsafe { _ = libc::execvp(CAT.as_ptr(), ARGUMENTS.as_ptr().cast()) },
            || unsafe { _ = libc::execl(CAT.as_ptr(), c"cat".as_ptr(), c"-".as_ptr(), ptr::null::<i8>()) },
            || unsafe {
                // More words than there are registers.
                let dash = c"-".as_ptr();
                let end = ptr::null::<i8>();
                _ = libc::execlp(CAT.as_ptr(), c"cat".as_ptr(), dash, dash, dash, dash, dash, dash, end)
            },
        ];
        for start in starts {
            hand_on(|fd| {
                standard(fd);
                call!(clearenv()).expect("clearenv");
                start();
            });
        }
    }),
    case("unread_bytes_reach_a_program_at_the_end_of_a_chain", || {
        for script in ["exec env -i cat", "env -i cat", "exec env -i sh -c 'cat'", "exec env - env - cat"] {
            hand_on(|fd| {
                standard(fd);
                let script = std::ffi::CString::new(script).expect("a script");
                sys::execute(c"/bin/sh", &[c"-c", &script], &sys::environment_with(&[]));
            });
        }
    }),
    case("unread_bytes_reach_a_program_under_a_file_size_limit", || {
        hand_on(|fd| {
            standard(fd);
            // A hard limit would forbid the file that the bytes are put down in.
            let limit = libc::rlimit { rlim_cur: 100, rlim_max: libc::RLIM_INFINITY };
            call!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit)).expect("setrlimit");
            sys::execute(c"/bin/cat", &[], &sys::environment_with(&[]));
        });
    }),
    case("what_cannot_be_put_down_for_a_program_is_not_lost_unnoticed", || {
        let (a, b) = used_pair(10_000);
        let mut out = Flow::new(2);
        out.write(a, 5000, 1000);
        assert_eq!(sys::poll_one(b, libc::POLLIN, -1), libc::POLLIN);
        let child = fork(|| {
            sys::close(a).expect("close");
            standard(b);
            let limit = libc::rlimit { rlim_cur: 100, rlim_max: 100 };
            call!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit)).expect("setrlimit");
            give_up_capabilities();
            sys::execute(c"/bin/cat", &[], &sys::environment_with(&[]));
        });
        sys::close(b).expect("close");
        let (mut back, mut room) = (Flow::new(2), [0; 777]);
        let broken = loop {
            match sys::read(a, &mut room) {
                Ok(0) => break false,
                Ok(count) => back.check(&room[..count]),
                Err(error) => {
                    assert_eq!(error.0, libc::ECONNRESET);
                    break true;
                }
            }
            if back.position == 5000 {
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            }
        };
        assert!(broken || back.position == 5000);
        sys::close(a).expect("close");
        // The program may have told an error of its own.
        sys::wait(child);
    }),
    case("a_program_sees_the_environment_that_it_was_given", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        sys::write_all(a, b"unread");
        assert_eq!(sys::poll_one(b, libc::POLLIN, -1), libc::POLLIN);
        let child = Child::run(|| {
            standard(b);
            let given = [c"ONE=1".as_ptr(), c"LD_BIND_NOW=1".as_ptr(), c"TWO=2".as_ptr(), ptr::null()];
            let program = c"/usr/bin/env".as_ptr();
            let arguments = [c"env".as_ptr(), ptr::null()];
            call!(libc::execve(program, arguments.as_ptr(), given.as_ptr())).expect("exec");
        });
        sys::close(b).expect("close");
        let mut text = Vec::new();
        let mut buffer = [0; 1000];
        while let Ok(count @ 1..) = sys::read(a, &mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
        let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        assert_eq!(lines, [&b"LD_BIND_NOW=1"[..], b"ONE=1", b"TWO=2"]);
        child.join();
    }),
    case("a_shell_command_takes_what_it_reads_and_leaves_the_rest", || {
        let commands: [fn(&CStr) -> i32; 2] = [
            // SAFETY: C strings.
            |command| unsafe { libc::system(command.as_ptr()) },
            |command| unsafe {
                let stream = libc::popen(command.as_ptr(), c"r".as_ptr());
                assert_eq!(libc::fgetc(stream), libc::EOF);
                libc::pclose(stream)
            },
        ];
        for command in commands {
            for before in [0, 10_000] {
                let (a, b) = used_pair(before);
                sys::write_all(a, b"first\nsecond\nthird\n");
                sys::until(|| sys::readable(b) == 19);
                sys::dup2(b, 0).expect("dup2");
                sys::close(b).expect("close");
                assert_eq!(command(c"true"), 0);
                assert_eq!(command(c"read line; test \"$line\" = first"), 0);
                assert_eq!(command(c"read line; test \"$line\" = second"), 0);
                assert_eq!(sys::read_exact(0, 6), b"third\n");
                sys::write_all(a, b"fourth\nfifth\n");
                assert_eq!(command(c"read line; test \"$line\" = fourth"), 0);
                assert_eq!(sys::read_exact(0, 6), b"fifth\n");
                sys::close(a).expect("close");
                assert_eq!(sys::read(0, &mut [0]), Ok(0));
            }
        }
    }),
    case("a_shell_command_is_told_a_number", || {
        for before in [0, 10_000] {
            let (a, b) = at_seven(before);
            sys::write_all(a, b"first\nsecond\n");
            sys::until(|| sys::readable(b) == 13);
            let command = c"read line <&7; echo \"$line and more\" >&7";
            // SAFETY: a C string.
            assert_eq!(unsafe { libc::system(command.as_ptr()) }, 0);
            assert_eq!(sys::read_exact(a, 15), b"first and more\n");
            assert_eq!(sys::read_exact(b, 7), b"second\n");
            Flow::new(2).write(a, 50_000, 500);
            Flow::new(2).read(b, 50_000, 500);
        }
    }),
    case("a_program_is_told_a_number_that_its_parent_closes_a_little_later", || {
        for before in [0, 10_000] {
            for unread in [0, 5000] {
                let (a, b) = at_seven(before);
                let mut flow = Flow::new(2);
                flow.write(a, unread, 500);
                let child = Child::run(|| {
                    sys::close(a).expect("close");
                    sys::execute(c"/bin/sh", &[c"-c", c"exec cat <&7 >&7"], &sys::environment_with(&[]));
                });
                // The child may have come to its exec by now.
                std::thread::yield_now();
                sys::close(b).expect("close");
                let mut back = Flow::new(2);
                back.read(a, unread, 500);
                flow.write(a, 50_000, 500);
                back.read(a, 50_000, 500);
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
                assert_eq!(sys::read(a, &mut [0]), Ok(0));
                sys::close(a).expect("close");
                child.join();
            }
        }
    }),
    case("a_program_and_its_parent_use_one_number", || {
        // By fork, by vfork and by posix_spawn: no doorbell is data for either of them.
        for (way, start) in [by_fork, by_vfork, by_spawn].into_iter().enumerate() {
            for before in [0, 10_000] {
                let (a, b) = at_seven(before);
                for round in 0..5 {
                    let pid = start();
                    assert_eq!(sys::read_exact(a, 6), b"ready\n", "way {way}, round {round}");
                    sys::write_all(a, b"for the child\n");
                    assert_eq!(sys::read_exact(a, 14), b"for the child\n", "way {way}, round {round}");
                    assert_eq!(sys::wait(pid), sys::Ended::Exited(0));
                    let mut flow = Flow::new(round);
                    flow.write(a, 3000, 100);
                    Flow::new(round).read(b, 3000, 100);
                    Flow::new(round).write(b, 3000, 100);
                    Flow::new(round).read(a, 3000, 100);
                }
                sys::close(a).expect("close");
                assert_eq!(sys::read(b, &mut [0]), Ok(0));
                sys::close(b).expect("close");
            }
        }
    }),
    case("unread_bytes_reach_a_program_that_is_spawned_with_file_actions", || {
        for before in [0, 10_000] {
            let (a, b) = at_seven(before);
            sys::write_all(a, b"unread");
            sys::until(|| sys::readable(b) == 6);
            let pid = spawn_cat(b, a);
            sys::close(b).expect("close");
            assert_eq!(sys::read_exact(a, 6), b"unread");
            let (mut out, mut back) = (Flow::new(2), Flow::new(2));
            out.write(a, 50_000, 500);
            back.read(a, 50_000, 500);
            sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            assert_eq!(sys::read(a, &mut [0]), Ok(0));
            assert_eq!(sys::wait(pid), sys::Ended::Exited(0));
        }
    }),
    case("threads_go_on_while_commands_run", || {
        let (a, b) = at_seven(10_000);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sum = scope.spawn(|| {
                let (mut there, mut back) = (Flow::new(2), Flow::new(3));
                while !stop.load(Ordering::SeqCst) {
                    there.write(a, 5000, 1234);
                    back.read(a, 5000, 777);
                }
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
            });
            scope.spawn(|| {
                let (mut there, mut back) = (Flow::new(2), Flow::new(3));
                let mut buffer = [0; 3000];
                while let Ok(count @ 1..) = sys::read(b, &mut buffer) {
                    there.check(&buffer[..count]);
                    back.write(b, count, 500);
                }
            });
            for round in 0..20 {
                // SAFETY: a C string.
                match round % 2 {
                    0 => assert_eq!(unsafe { libc::system(c"true".as_ptr()) }, 0),
                    _ => assert_eq!(sys::wait(sys::spawn(c"/bin/true", &[], &[])), sys::Ended::Exited(0)),
                }
            }
            stop.store(true, Ordering::SeqCst);
            sum.join().expect("the stream");
        });
    }),
    case("a_failed_exec_without_an_environment_changes_nothing", || {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, 10_000, 500);
        Flow::new(1).read(b, 10_000, 500);
        sys::set_cloexec(b, false);
        sys::write_all(a, b"unread");
        let nothing = c"/nonexistent/program".as_ptr();
        let end = ptr::null::<libc::c_char>();
        let none = [end];
        sys::fails(call!(libc::execve(nothing, ARGUMENTS.as_ptr().cast(), none.as_ptr())), libc::ENOENT);
        sys::fails(call!(libc::execl(nothing, nothing, end)), libc::ENOENT);
        sys::fails(call!(libc::execle(nothing, nothing, end, none.as_ptr())), libc::ENOENT);
        assert_eq!(sys::read_exact(b, 6), b"unread");
        Flow::new(2).write(a, 10_000, 500);
        Flow::new(2).read(b, 10_000, 500);
    }),
];

const CAT: &CStr = c"/bin/cat";
const ARGUMENTS: [Pointer; 2] = [Pointer(c"cat".as_ptr()), Pointer(ptr::null())];

/// A pointer into constant memory.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Pointer(*const libc::c_char);

// SAFETY: nobody writes there.
unsafe impl Sync for Pointer {}

type Environment = *const *const libc::c_char;

/// The ways to start `cat` with an environment that is given; each is the end of its process.
const STARTS: [fn(Environment); 6] = [
    // SAFETY: C strings, and arrays that end with a null.
    |envp| unsafe { _ = libc::execve(CAT.as_ptr(), ARGUMENTS.as_ptr().cast(), envp) },
    |envp| unsafe { _ = libc::execvpe(c"cat".as_ptr(), ARGUMENTS.as_ptr().cast(), envp) },
    |envp| unsafe {
        let file = libc::open(CAT.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        _ = libc::fexecve(file, ARGUMENTS.as_ptr().cast(), envp)
    },
    |envp| unsafe {
        let end = ptr::null::<libc::c_char>();
        _ = libc::execle(CAT.as_ptr(), c"cat".as_ptr(), end, envp)
    },
    |envp| unsafe {
        let mut pid = 0;
        let arguments = ARGUMENTS.as_ptr().cast();
        let failed =
            libc::posix_spawn(&mut pid, CAT.as_ptr(), ptr::null(), ptr::null(), arguments, envp.cast());
        assert_eq!(failed, 0);
        end_of(pid)
    },
    |envp| end_of(vfork_and_execute(envp)),
];

/// A pair that has carried some bytes.
pub(crate) fn used_pair(before: usize) -> (i32, i32) {
    let (a, b) = sys::pair();
    Flow::new(1).write(a, before, 500);
    Flow::new(1).read(b, before, 500);
    (a, b)
}

/// The same; the second end is number 7, and open to programs that are executed.
fn at_seven(before: usize) -> (i32, i32) {
    let (a, b) = used_pair(before);
    let (a, low) = if a == 7 { (sys::dup(a), b) } else { (a, b) };
    sys::dup2(low, 7).expect("dup2");
    if low != 7 {
        sys::close(low).expect("close");
    }
    sys::set_cloexec(a, true);
    sys::set_cloexec(7, false);
    (a, 7)
}

const SHELL: &CStr = c"/bin/sh";
/// Answers one line on descriptor 7.
const ANSWERS: [Pointer; 4] = [
    Pointer(c"sh".as_ptr()),
    Pointer(c"-c".as_ptr()),
    Pointer(c"echo ready >&7; read line <&7; echo \"$line\" >&7".as_ptr()),
    Pointer(ptr::null()),
];

/// Spawns `cat` with `fd` as its input and output, and every kind of action that there is around it.
fn spawn_cat(fd: i32, other: i32) -> libc::pid_t {
    let mut actions = std::mem::MaybeUninit::uninit();
    let variables = sys::environment_with(&[]);
    let envp: Vec<_> =
        variables.iter().map(|each| each.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
    let mut pid = 0;
    // SAFETY: the actions are initialised first; both arrays end with a null pointer.
    unsafe {
        let at = actions.as_mut_ptr();
        libc::posix_spawn_file_actions_init(at);
        libc::posix_spawn_file_actions_addopen(at, 60, c"/dev/null".as_ptr(), libc::O_RDONLY, 0);
        libc::posix_spawn_file_actions_addclose(at, other);
        libc::posix_spawn_file_actions_adddup2(at, fd, 0);
        libc::posix_spawn_file_actions_adddup2(at, fd, 1);
        posix_spawn_file_actions_addclosefrom_np(at, 3);
        let (arguments, envp) = (ARGUMENTS.as_ptr().cast(), envp.as_ptr());
        assert_eq!(libc::posix_spawn(&mut pid, CAT.as_ptr(), at, ptr::null(), arguments, envp), 0);
        libc::posix_spawn_file_actions_destroy(at);
    }
    pid
}

fn by_fork() -> libc::pid_t {
    // SAFETY: C strings, and arrays that end with a null.
    Child::run(|| unsafe { _ = libc::execv(SHELL.as_ptr(), ANSWERS.as_ptr().cast()) }).0
}

#[inline(never)]
fn by_vfork() -> libc::pid_t {
    // SAFETY: the child only executes a program, or leaves.
    #[expect(deprecated, reason = "vfork is the subject")]
    let pid = unsafe { libc::vfork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::execv(SHELL.as_ptr(), ANSWERS.as_ptr().cast());
            libc::_exit(127)
        }
    }
    pid
}

fn by_spawn() -> libc::pid_t {
    let variables = sys::environment_with(&[]);
    let envp: Vec<_> =
        variables.iter().map(|each| each.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
    let (arguments, mut pid) = (ANSWERS.as_ptr().cast(), 0);
    let start = libc::posix_spawn;
    // SAFETY: C strings, and arrays that end with a null.
    let failed =
        unsafe { start(&mut pid, SHELL.as_ptr(), ptr::null(), ptr::null(), arguments, envp.as_ptr()) };
    assert_eq!(failed, 0);
    pid
}

/// In a function of its own: a vfork child runs on its parent's stack.
#[inline(never)]
fn vfork_and_execute(envp: Environment) -> libc::pid_t {
    // SAFETY: the child only executes a program, or leaves.
    #[expect(deprecated, reason = "vfork is the subject")]
    let pid = unsafe { libc::vfork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::dup2(0, 0);
            libc::execve(CAT.as_ptr(), ARGUMENTS.as_ptr().cast(), envp);
            libc::_exit(127)
        }
    }
    pid
}

/// Leaves as a child does, which has the only other names of the connection.
fn end_of(pid: libc::pid_t) {
    sys::close(0).expect("close");
    sys::close(1).expect("close");
    assert_eq!(sys::wait(pid), sys::Ended::Exited(0));
    // SAFETY: the parent looks at the status.
    unsafe { libc::_exit(0) }
}

/// Puts a connection where programs expect it.
pub(crate) fn standard(fd: i32) {
    sys::dup2(fd, 0).expect("dup2");
    sys::dup2(fd, 1).expect("dup2");
    sys::close(fd).expect("close");
}

/// A connection with unread bytes goes to `cat`, which `start` becomes or starts in a child.
#[track_caller]
fn hand_on(start: impl Fn(i32)) {
    for before in [0, 10_000] {
        let (a, b) = sys::pair();
        Flow::new(1).write(a, before, 500);
        Flow::new(1).read(b, before, 500);
        let mut out = Flow::new(2);
        out.write(a, 5000, 1000);
        assert_eq!(sys::poll_one(b, libc::POLLIN, -1), libc::POLLIN);
        let child = Child::run(|| {
            sys::close(a).expect("close");
            start(b);
        });
        sys::close(b).expect("close");
        let mut back = Flow::new(2);
        back.read(a, 5000, 777);
        out.write(a, 50_000, 1000);
        back.read(a, 50_000, 777);
        sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        assert_eq!(sys::read(a, &mut [0]), Ok(0));
        sys::close(a).expect("close");
        child.join();
    }
}

/// Without them the superuser keeps to limits, too (capabilities(7)).
fn give_up_capabilities() {
    let header = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    call!(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr())).expect("capset");
}

unsafe extern "C" {
    fn posix_spawn_file_actions_addclosefrom_np(
        actions: *mut libc::posix_spawn_file_actions_t,
        lowest: i32,
    ) -> i32;
    fn clearenv() -> i32;
}
