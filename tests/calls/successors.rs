//! Programs that get a connection with bytes unread: with sockshim, without it, by every kind of exec.

use std::ffi::CStr;
use std::ptr;

use crate::data::Flow;
use crate::harness::{Case, Child, case};
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
fn standard(fd: i32) {
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

unsafe extern "C" {
    fn clearenv() -> i32;
}
