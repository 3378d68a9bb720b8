//! Programs that get a connection with bytes unread and cannot load a library: static, set-user-ID, or simply without
//! sockshim, by exec, by posix_spawn and in a message.

use std::ffi::{CStr, CString};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs, ptr, thread};

use libc::{EPOLLET, EPOLLIN};

use crate::data::Flow;
use crate::descriptors::{receive_descriptor, send_descriptor};
use crate::harness::{Case, Child, case, skip};
use crate::new_owners::standard;
use crate::sys::raw::Way;
use crate::sys::wait::{add, epoll, ready};
use crate::sys::{self, call};

pub(crate) const CASES: &[Case] = &[
    case("unread_bytes_reach_a_static_program", || {
        let program = static_program();
        hand_on(|fd| {
            standard(fd);
            sys::execute(&program, &[], &sys::environment_with(&[]));
        });
    }),
    case("unread_bytes_reach_a_static_program_that_is_spawned", || {
        let program = static_program();
        hand_on(|fd| {
            let pid = spawn(&program, fd);
            sys::close(fd).expect("close");
            assert_eq!(sys::wait(pid), sys::Ended::Exited(0));
        });
    }),
    case("unread_bytes_reach_a_static_program_after_vfork", || {
        let program = static_program();
        hand_on(|fd| {
            standard(fd);
            let pid = vfork_and_execute(&program);
            sys::close(0).expect("close");
            sys::close(1).expect("close");
            assert_eq!(sys::wait(pid), sys::Ended::Exited(0));
        });
    }),
    case("unread_bytes_reach_a_static_program_at_the_end_of_a_chain", || {
        let program = static_program();
        let program = program.to_str().expect("a path");
        for script in [format!("exec {program}"), format!("exec env -i {program}"), program.to_owned()] {
            hand_on(|fd| {
                standard(fd);
                let script = CString::new(script.as_str()).expect("a script");
                sys::execute(c"/bin/sh", &[c"-c", &script], &sys::environment_with(&[]));
            });
        }
    }),
    case("unread_bytes_reach_a_set_user_id_program", || {
        if call!(libc::geteuid()) != Ok(0) {
            skip("not root");
        }
        let program = scratch("cat");
        fs::copy("/bin/cat", &program).expect("copy");
        let path = CString::new(program.to_str().expect("a path")).expect("a path");
        call!(libc::chown(path.as_ptr(), 65534, 65534)).expect("chown");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("chmod");
        hand_on(|fd| {
            standard(fd);
            sys::execute(&path, &[], &sys::environment_with(&[]));
        });
    }),
    case("unread_bytes_reach_a_process_without_sockshim_in_a_message", || {
        pass_on(&[("LD_PRELOAD", "")]);
    }),
    case("unread_bytes_reach_a_process_with_sockshim_in_a_message", || {
        pass_on(&[]);
    }),
    case("unread_bytes_of_a_writer_in_the_same_process_need_no_call_of_its", || {
        pass_on_and(&[("LD_PRELOAD", "")], |a| {
            // What the other process has echoed: more than the doorbells that may be there.
            let mut waiting = 0_i32;
            sys::until(|| {
                Way::Past.ioctl(a, libc::FIONREAD as u32, (&raw mut waiting).addr()).expect("FIONREAD");
                waiting >= 100
            });
        });
    }),
    // The program that those before start; nothing by itself.
    case("receiver_of_another_case", || {
        let Some(over) = env::var("CALLS_OVER").ok().and_then(|text| text.parse().ok()) else { return };
        echo(receive_descriptor(over));
    }),
    case("a_writer_that_sleeps_sends_again", || {
        let program = static_program();
        let sleeps: [fn(i32); 5] = [
            |_| {},
            |fd| _ = sys::recv(fd, &mut [0], libc::MSG_PEEK),
            |fd| assert_eq!(sys::poll_one(fd, libc::POLLIN, -1), libc::POLLIN),
            |fd| {
                let set = epoll();
                add(set, fd, EPOLLIN);
                assert_eq!(ready(set, -1), [(EPOLLIN, fd as u64)]);
            },
            |fd| {
                let set = epoll();
                add(set, fd, EPOLLIN | EPOLLET);
                assert_eq!(ready(set, -1), [(EPOLLIN, fd as u64)]);
            },
        ];
        for sleep in sleeps {
            // With answers, and without any before.
            for answers in [0, 5000] {
                let (a, b) = sys::pair();
                Flow::new(1).write(a, 10_000, 500);
                Flow::new(1).read(b, 10_000, 500);
                Flow::new(3).write(b, answers, 500);
                Flow::new(3).read(a, answers, 500);
                Flow::new(2).write(a, 5000, 1000);
                let child = Child::run(|| {
                    sys::close(a).expect("close");
                    sys::let_sleep(sys::getppid(), sys::getppid());
                    standard(b);
                    sys::execute(&program, &[], &sys::environment_with(&[]));
                });
                sys::close(b).expect("close");
                sleep(a);
                Flow::new(2).read(a, 5000, 777);
                sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
                assert_eq!(sys::read(a, &mut [0]), Ok(0));
                sys::close(a).expect("close");
                child.join();
            }
        }
    }),
    case("a_writer_that_shuts_its_direction_sends_again", || {
        let program = static_program();
        let (a, b) = with_unread(5000);
        let child = Child::run(|| {
            sys::close(a).expect("close");
            standard(b);
            sys::execute(&program, &[], &sys::environment_with(&[]));
        });
        sys::close(b).expect("close");
        sys::until(|| has_executed(child.0));
        sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
        let mut back = Flow::new(2);
        assert_eq!(back.read_to_end(a, 777), 5000);
        child.join();
    }),
    case("a_writer_that_closes_or_exits_sends_again", || {
        let program = static_program();
        for way in 0..3 {
            let (a, b) = with_unread(5000);
            let (reader, from) = reads(&program, a, b);
            let writer = Child::run(|| match way {
                0 => sys::close(a).map(drop).expect("close"),
                // SAFETY: the child has one thread.
                1 => unsafe { libc::exit(0) },
                // SAFETY: as above.
                _ => unsafe { libc::_exit(0) },
            });
            sys::close(a).expect("close");
            writer.join();
            assert_eq!(Flow::new(2).read_to_end(from, 777), 5000);
            reader.join();
        }
    }),
    case("a_writer_that_goes_on_meanwhile_keeps_its_order", || {
        // The other end hands its socket on in the middle of a stream that it reads.
        let program = static_program();
        for round in 0..10 {
            let (a, b) = sys::pair();
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let mut flow = Flow::new(1);
                    while !stop.load(Ordering::SeqCst) {
                        // Of more than a megabyte not all can be sent again (docs/compatibility.md).
                        if flow.position < 500_000 {
                            flow.write(a, 100, 100);
                        }
                        thread::yield_now();
                    }
                    flow.write(a, 100_000, 1000);
                    sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
                    flow.position
                });
                let mut flow = Flow::new(1);
                flow.read(b, 3000 + 100 * round, 90);
                let start = flow.position;
                let child = Child::run(|| {
                    sys::close(a).expect("close");
                    standard(b);
                    sys::execute(&program, &[], &sys::environment_with(&[]));
                });
                sys::close(b).expect("close");
                flow.read(a, 3000, 500);
                stop.store(true, Ordering::SeqCst);
                flow.read_to_end(a, 5000);
                assert_eq!(writer.join().expect("the writer"), flow.position, "handed on at {start}");
                child.join();
            });
        }
    }),
    case("an_exec_that_fails_after_a_writer_sent_again", || {
        for sleeps in [false, true] {
            let (a, b) = with_unread(5000);
            sys::set_cloexec(b, false);
            let (done, wait) = sys::socketpair();
            let child = Child::run(|| {
                sys::close(b).expect("close");
                if !sleeps {
                    sys::read_exact(wait, 1);
                }
                let mut back = Flow::new(3);
                back.read(a, 5000, 500);
                back.write(a, 5000, 500);
            });
            sys::close(a).expect("close");
            let nothing = c"/nonexistent/program".as_ptr();
            for _ in 0..3 {
                sys::fails(call!(libc::execl(nothing, nothing, ptr::null::<libc::c_char>())), libc::ENOENT);
            }
            sys::write_all(done, b"!");
            Flow::new(2).read(b, 5000, 500);
            let mut back = Flow::new(3);
            back.write(b, 5000, 500);
            back.read(b, 5000, 500);
            child.join();
        }
    }),
];

/// `cat`, without a library: what the kernel itself starts.
const SOURCE: &str = "
static long call(long number, long a, long b, long c) {
    long result;
    __asm__ volatile(\"syscall\" : \"=a\"(result) : \"a\"(number), \"D\"(a), \"S\"(b), \"d\"(c) : \"rcx\", \"r11\", \"memory\");
    return result;
}
void _start(void) {
    static char buffer[3000];
    for (;;) {
        long count = call(0, 0, (long)buffer, sizeof buffer);
        if (count <= 0) call(231, count < 0, 0, 0);
        for (long done = 0; done < count;) {
            long written = call(1, 1, (long)(buffer + done), count - done);
            if (written < 0) call(231, 2, 0, 0);
            done += written;
        }
    }
}
";

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env::var("CALLS_SCRATCH").expect("the runner sets it")).join(name)
}

/// A program that no library can be loaded into.
pub(crate) fn static_program() -> CString {
    let (source, program) = (scratch("cat.c"), scratch("static"));
    fs::write(&source, SOURCE).expect("the source");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-static", "-nostdlib", "-fno-stack-protector", "-o"]);
    assert!(compiler.arg(&program).arg(&source).status().expect("cc").success());
    CString::new(program.to_str().expect("a path")).expect("a path")
}

/// A pair that has carried some bytes, and has more to read at the second end.
pub(crate) fn with_unread(unread: usize) -> (i32, i32) {
    let (a, b, _) = with_flow(10_000, unread);
    (a, b)
}

/// The same after so many bytes, with the stream that goes on.
fn with_flow(before: usize, unread: usize) -> (i32, i32, Flow) {
    let (a, b) = sys::pair();
    Flow::new(1).write(a, before, 500);
    Flow::new(1).read(b, before, 500);
    let mut out = Flow::new(2);
    out.write(a, unread, 1000);
    (a, b, out)
}

/// Hands `b`, whose other end is `a`, on to a child that has executed `program` by now; what it writes comes from the
/// returned descriptor.
pub(crate) fn reads(program: &CStr, a: i32, b: i32) -> (Child, i32) {
    let (from, into) = sys::pipe();
    let reader = Child::run(|| {
        sys::close(a).expect("close");
        sys::close(from).expect("close");
        sys::dup2(b, 0).expect("dup2");
        sys::dup2(into, 1).expect("dup2");
        sys::close(b).expect("close");
        sys::close(into).expect("close");
        sys::execute(program, &[], &sys::environment_with(&[]));
    });
    sys::close(b).expect("close");
    sys::close(into).expect("close");
    sys::until(|| has_executed(reader.0));
    (reader, from)
}

/// Whether a child is another program by now.
fn has_executed(pid: libc::pid_t) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.ends_with("static"))
}

/// A connection with unread bytes goes to an echo, which `start` becomes or starts in a child.
#[track_caller]
fn hand_on(start: impl Fn(i32)) {
    // More than a small ring holds: the rest lies in the kernel.
    for (before, unread) in [(0, 100), (10_000, 100), (10_000, 5000), (10_000, 100_000)] {
        let (a, b, mut out) = with_flow(before, unread);
        assert_eq!(sys::poll_one(b, libc::POLLIN, -1), libc::POLLIN);
        let child = Child::run(|| {
            sys::close(a).expect("close");
            start(b);
        });
        sys::close(b).expect("close");
        converse(a, &mut out, unread);
        child.join();
    }
}

/// What the first end of [`hand_on`] does, with `unread` bytes on their way.
fn converse(a: i32, out: &mut Flow, unread: usize) {
    let mut back = Flow::new(2);
    back.read(a, unread, 777);
    out.write(a, 50_000, 1000);
    back.read(a, 50_000, 777);
    sys::shutdown(a, libc::SHUT_WR).expect("shutdown");
    assert_eq!(sys::read(a, &mut [0]), Ok(0));
    sys::close(a).expect("close");
}

/// A connection with unread bytes goes to another process in a message, and both directions go on.
fn pass_on(extra: &[(&str, &str)]) {
    pass_on_and(extra, |_| {});
}

/// The same; `before_calls` gets the first end before anything else is done with it.
fn pass_on_and(extra: &[(&str, &str)], before_calls: impl Fn(i32)) {
    for (before, unread) in [(0, 100), (10_000, 100), (10_000, 5000), (10_000, 100_000)] {
        let (a, b, mut out) = with_flow(before, unread);
        let (left, right) = sys::socketpair();
        for fd in [a, b, left] {
            sys::set_cloexec(fd, true);
        }
        let over = right.to_string();
        let own = [("CALLS_CASE", "plain::receiver_of_another_case"), ("CALLS_OVER", &over)];
        let receiver = sys::spawn(&sys::own_program(), &[], &[extra, &own].concat());
        sys::close(right).expect("close");
        send_descriptor(left, b);
        sys::close(b).expect("close");
        before_calls(a);
        converse(a, &mut out, unread);
        assert_eq!(sys::wait(receiver), sys::Ended::Exited(0));
    }
}

fn echo(fd: i32) {
    let mut buffer = [0; 3000];
    loop {
        match sys::read(fd, &mut buffer).expect("read") {
            0 => return,
            count => sys::write_all(fd, &buffer[..count]),
        }
    }
}

fn spawn(program: &CStr, fd: i32) -> libc::pid_t {
    let mut actions = std::mem::MaybeUninit::uninit();
    let variables = sys::environment_with(&[]);
    let envp: Vec<_> =
        variables.iter().map(|each| each.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect();
    let arguments = [program.as_ptr().cast_mut(), ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: the actions are initialised first; both arrays end with a null pointer.
    unsafe {
        let at = actions.as_mut_ptr();
        libc::posix_spawn_file_actions_init(at);
        libc::posix_spawn_file_actions_adddup2(at, fd, 0);
        libc::posix_spawn_file_actions_adddup2(at, fd, 1);
        libc::posix_spawn_file_actions_addclose(at, fd);
        let start = libc::posix_spawn;
        assert_eq!(start(&mut pid, program.as_ptr(), at, ptr::null(), arguments.as_ptr(), envp.as_ptr()), 0);
        libc::posix_spawn_file_actions_destroy(at);
    }
    pid
}

/// In a function of its own: a vfork child runs on its parent's stack.
#[inline(never)]
fn vfork_and_execute(program: &CStr) -> libc::pid_t {
    let arguments = [program.as_ptr(), ptr::null()];
    // SAFETY: the child only executes a program, or leaves.
    #[expect(deprecated, reason = "vfork is the subject")]
    let pid = unsafe { libc::vfork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::execv(program.as_ptr(), arguments.as_ptr());
            libc::_exit(127)
        }
    }
    pid
}
