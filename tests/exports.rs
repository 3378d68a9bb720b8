//! What the shared object exports, and that nothing of it reaches the other binaries.
//!
//! `SOCKSHIM_BLESS=1 cargo test --test exports` writes tests/exports.txt anew.

mod common;

use object::{Object, ObjectSymbol};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn the_exports_are_the_checked_in_list() {
    let exported = exports(&common::libsockshim());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports.txt");
    if std::env::var_os("SOCKSHIM_BLESS").is_some() {
        let lines: String = exported.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(&path, lines).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let listed: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    let missing: Vec<_> = listed.difference(&exported).collect();
    let unexpected: Vec<_> = exported.difference(&listed).collect();
    assert!(missing.is_empty() && unexpected.is_empty(), "missing {missing:?}, unexpected {unexpected:?}");
}

#[test]
fn every_name_that_a_program_may_bind_is_taken() {
    let exported = exports(&common::libsockshim());
    let missing: Vec<_> = plain_names().filter(|name| !exported.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_taken_name_is_one_that_programs_bind() {
    let plain: BTreeSet<&str> = plain_names().collect();
    let exported = exports(&common::libsockshim());
    let unexpected: Vec<_> = exported
        .iter()
        .filter(|name| !name.starts_with("sockshim_") && !plain.contains(name.as_str()))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[test]
fn this_test_defines_no_libc_name() {
    let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let file = object::File::parse(&*data).unwrap();
    let defined: BTreeSet<&str> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.is_definition())
        .filter_map(|symbol| symbol.name().ok())
        .collect();
    assert!(!defined.is_empty(), "the test executable has no symbols to look at");
    let taken: Vec<_> = plain_names().filter(|name| defined.contains(name)).collect();
    assert!(taken.is_empty(), "{taken:?}");
}

/// The names that a dynamic linker finds in the file.
fn exports(path: &Path) -> BTreeSet<String> {
    let data = std::fs::read(path).unwrap();
    let file = object::File::parse(&*data).unwrap();
    file.dynamic_symbols()
        .filter(|symbol| symbol.is_definition())
        .map(|symbol| symbol.name().unwrap().to_owned())
        .collect()
}

fn plain_names() -> impl Iterator<Item = &'static str> {
    PLAIN.split_whitespace()
}

const PLAIN: &str = "
    socket socketpair bind listen accept accept4 connect shutdown close getsockname getpeername getsockopt setsockopt
    read readv write writev recv recvfrom recvmsg recvmmsg send sendto sendmsg sendmmsg
    preadv2 pwritev2 preadv64v2 pwritev64v2 __read_chk __recv_chk __recvfrom_chk sendfile sendfile64 splice tee
    select pselect poll ppoll __poll_chk __ppoll_chk
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    dup dup2 dup3 fcntl fcntl64 ioctl sockatmark close_range closefrom
    fork _Fork vfork setuid seteuid setreuid setresuid setfsuid execve execv execvp execvpe execl execlp execle fexecve posix_spawn posix_spawnp
    fdopen freopen freopen64 dprintf vdprintf fclose fcloseall
    system popen pclose daemon login_tty forkpty _exit _Exit
    syscall prctl
    sigaction __sigaction signal bsd_signal ssignal sysv_signal __sysv_signal siginterrupt sigset
    open open64 openat openat64 creat creat64 pipe pipe2 eventfd timerfd_create signalfd memfd_create
    inotify_init inotify_init1
    io_uring_setup io_uring_queue_init io_uring_queue_init_params io_uring_queue_init_mem
    __close __connect __read __write __send __poll __select __fcntl __dup2 __open __open64
";
