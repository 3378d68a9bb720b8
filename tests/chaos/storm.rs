//! The storms themselves.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{env, ptr};

use crate::mode;
use crate::process::{Mode, Program, Scratch, skip};
use crate::traffic::Random;

/// The shapes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Threads,
    Events,
    Forks,
    Carriers,
}

impl Server {
    fn role(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Events => "events",
            Self::Forks => "forks",
            Self::Carriers => "carriers",
        }
    }
}

/// What the rendezvous folder may be instead of one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Folder {
    Link,
    File,
    Open,
    Unreadable,
    Foreign,
    Nowhere,
    Deleted,
}

/// A scratch folder, a server in it, and what it looked like before anybody came.
struct Place {
    server: Program,
    mode: Mode,
    port: String,
    descriptors: usize,
    scratch: Scratch,
}

impl Place {
    fn new(seed: u64, server: Server) -> Self {
        Self::with(seed, server, Scratch::new(), |_| {})
    }

    /// `prepare` changes the server's command.
    fn with(seed: u64, server: Server, scratch: Scratch, prepare: impl FnOnce(&mut Command)) -> Self {
        let mode = mode(seed);
        let mut command = role(&scratch, mode, server.role());
        prepare(&mut command);
        let mut server = scratch.start(&mut command);
        let port = server.port();
        let descriptors = descriptors(server.pid());
        Self { scratch, mode, server, port, descriptors }
    }

    fn client(&self, seed: u64, count: u64, tolerant: bool) -> Program {
        let mut command = role(&self.scratch, self.mode, "client");
        let tolerant = u64::from(tolerant).to_string();
        command.env("CHAOS_COUNT", count.to_string()).env("CHAOS_TOLERANT", tolerant);
        self.program(command, seed)
    }

    /// A client that goes on for ever and that the server cannot rely on.
    fn victim(&self, seed: u64) -> Program {
        let mut command = role(&self.scratch, self.mode, "victim");
        command.env("CHAOS_COUNT", "0").env("CHAOS_TOLERANT", "0");
        self.program(command, seed)
    }

    fn program(&self, mut command: Command, seed: u64) -> Program {
        command.env("CHAOS_PORT", &self.port).env("CHAOS_SEED", seed.to_string());
        self.scratch.start(&mut command)
    }

    /// All who came have gone: the server goes on as if nobody had been there.
    #[track_caller]
    fn settles(&mut self, seed: u64) {
        self.client(seed, 3, false).success();
        let pids: Vec<u32> = [self.server.pid()].into_iter().chain(self.children()).collect();
        for pid in pids {
            until(&format!("process {pid} has closed what it opened"), || {
                descriptors(pid) <= self.descriptors
            });
            until(&format!("process {pid} has no segment"), || segments(pid) == 0);
        }
        until("no slot is taken", || self.scratch.connections().is_empty());
        self.lives();
    }

    #[track_caller]
    fn lives(&mut self) {
        let pid = self.server.pid();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let ended = state.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'));
        assert!(!ended, "the server has ended: {:?}\n{}", self.server.wait(), self.server.stderr());
    }

    /// The children that the server has said it has, and that live.
    fn children(&self) -> Vec<u32> {
        let text = self.server.stdout();
        let numbers = text.lines().filter_map(|line| line.strip_prefix("child ")?.parse().ok());
        let server = self.server.pid() as libc::pid_t;
        // Of its group: a number may be somebody else's by now.
        // SAFETY: takes no pointers.
        let lives =
            |pid: &u32| unsafe { libc::getpgid(*pid as libc::pid_t) } == server && descriptors(*pid) > 0;
        numbers.filter(lives).collect()
    }

    /// One of them, if there is any.
    fn any_child(&self, random: &mut Random) -> Option<u32> {
        let children = self.children();
        (!children.is_empty()).then(|| children[random.below(children.len() as u64) as usize])
    }
}

fn role(scratch: &Scratch, mode: Mode, name: &str) -> Command {
    let mut command = scratch.command(mode, env::current_exe().expect("this program"));
    command.env("CHAOS_ROLE", name);
    command
}

/// Waits until it is so; the limit is there for hangs alone.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited for a minute until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Segments that a process has mapped.
fn segments(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter(|line| line.contains("/pipe")).count()
}

fn signal(pid: u32, signal: libc::c_int) {
    // SAFETY: takes no pointers; the processes are this test's own, in groups that only it ends.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Stops a process for a moment.
fn stop(pid: u32, random: &mut Random) {
    signal(pid, libc::SIGSTOP);
    thread::sleep(Duration::from_millis(random.below(90)));
    signal(pid, libc::SIGCONT);
}

pub(crate) fn kill_and_stop(seed: u64, kind: Server) {
    let mut random = Random::new(seed);
    let mut place = Place::new(seed, kind);
    let tolerant = kind == Server::Forks;
    let start = |place: &Place, random: &mut Random| place.client(random.next(), 6, tolerant);
    let mut clients: Vec<Program> = (0..3).map(|_| start(&place, &mut random)).collect();
    for _ in 0..25 {
        thread::sleep(Duration::from_millis(random.below(40)));
        let which = random.below(3) as usize;
        match random.below(4) {
            0 => {
                let next = start(&place, &mut random);
                std::mem::replace(&mut clients[which], next).kill();
            }
            1 => stop(clients[which].pid(), &mut random),
            2 => {
                let child = place.any_child(&mut random);
                stop(child.unwrap_or_else(|| place.server.pid()), &mut random);
            }
            _ => {
                if let Some(child) = place.any_child(&mut random) {
                    signal(child, libc::SIGKILL);
                }
            }
        }
    }
    for client in clients {
        client.success();
    }
    place.settles(random.next());
}

/// The clients are stopped now and then, and nothing is lost.
pub(crate) fn hand_on(seed: u64) {
    let mut random = Random::new(seed);
    let mut place = carriers(seed, false);
    let mut clients: Vec<Program> = (0..3).map(|_| place.client(random.next(), 8, false)).collect();
    while clients.iter_mut().all(Program::runs) {
        thread::sleep(Duration::from_millis(random.below(60)));
        stop(clients[random.below(3) as usize].pid(), &mut random);
    }
    for client in &mut clients {
        let status = client.wait();
        nothing_was_wrong(&place);
        assert!(status.success(), "{status}\n{}", client.stderr());
    }
    place.settles(random.next());
}

/// Carriers are killed: their conversations are lost, and no other byte.
pub(crate) fn hand_on_and_kill(seed: u64) {
    let mut random = Random::new(seed);
    let mut place = carriers(seed, true);
    let start = |place: &Place, random: &mut Random| place.client(random.next(), 8, true);
    let mut clients: Vec<Program> = (0..3).map(|_| start(&place, &mut random)).collect();
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(random.below(30)));
        let which = random.below(3) as usize;
        match random.below(6) {
            0 => {
                let next = start(&place, &mut random);
                std::mem::replace(&mut clients[which], next).kill();
            }
            1 if clients[which].runs() => stop(clients[which].pid(), &mut random),
            _ => {
                if let Some(carrier) = place.any_child(&mut random) {
                    signal(carrier, libc::SIGKILL);
                }
            }
        }
    }
    for client in clients {
        client.success();
    }
    nothing_was_wrong(&place);
    place.settles(random.next());
    place.server.kill();
    let_age(place.scratch.rendezvous());
}

/// What is left for a new owner stays for a minute, also when that was killed. The next program that starts takes it away.
fn let_age(folder: &Path) {
    for entry in fs::read_dir(folder).expect("the folder").flatten() {
        if entry.file_name().as_bytes().starts_with(b"left") {
            let file = fs::File::options().write(true).open(entry.path()).expect("a file");
            file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("its time");
        }
    }
}

fn carriers(seed: u64, tolerant: bool) -> Place {
    Place::with(seed, Server::Carriers, Scratch::new(), |command| {
        command.env("CHAOS_TOLERANT", u64::from(tolerant).to_string());
    })
}

/// What the server's processes have said.
#[track_caller]
fn nothing_was_wrong(place: &Place) {
    assert_eq!(place.server.stderr(), "");
}

pub(crate) fn births(seed: u64) {
    let mut place = Place::with(0, Server::Threads, Scratch::new(), |_| {});
    let command = role(&place.scratch, Mode::AtOnce, "births");
    place.program(command, seed).success();
    place.settles(seed);
    place.server.kill();
    // The parent of those children ended by itself: it has cleaned up after them.
    let names: Vec<_> = fs::read_dir(place.scratch.rendezvous()).expect("the folder").flatten().collect();
    assert!(names.len() <= 1, "beside the killed server's table: {names:?}");
}

pub(crate) fn scribble(seed: u64, kind: Server) {
    let mut random = Random::new(seed);
    let mut place = Place::new(0, kind);
    let mut hostile = || {
        let command = role(&place.scratch, Mode::AtOnce, "scribbler");
        place.program(command, random.next())
    };
    let hostiles = [hostile(), hostile()];
    let honest = [1, 2].map(|number| place.client(seed.wrapping_mul(3) + number, 12, false));
    for client in honest {
        client.success();
    }
    for hostile in hostiles {
        hostile.kill();
    }
    place.settles(seed);
}

/// What the stranger spoils is the server's own: its conversations may break. It must go on living, and nobody else may
/// notice.
pub(crate) fn vandalise(seed: u64, kind: Server) {
    let mut place = Place::new(0, kind);
    let mut bystander = Place::new(0, kind);
    let mut vandal = role(&place.scratch, Mode::Native, "vandal");
    let table = table_of(place.scratch.rendezvous());
    vandal.env("CHAOS_TABLE", table);
    let mut victims = [1, 2, 3].map(|number| place.victim(seed.wrapping_mul(5) + number));
    let mut vandal = place.program(vandal, seed);
    vandal.until("has mapped the table", |vandal| vandal.stdout().contains("mapped").then_some(()));
    bystander.client(seed, 10, false).success();
    place.lives();
    vandal.kill();
    for victim in &mut victims {
        signal(victim.pid(), libc::SIGKILL);
    }
    drop(victims);
    place.lives();
    bystander.settles(seed);
    place.server.kill();
}

/// The one table in a folder.
fn table_of(folder: &Path) -> PathBuf {
    let names = fs::read_dir(folder).expect("the folder").flatten();
    let is_table =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"table"));
    names.map(|entry| entry.path()).find(is_table).expect("a table")
}

pub(crate) fn tiny_tmpfs(seed: u64) {
    let scratch = Scratch::new();
    let Some(mounted) = Mounted::tmpfs(scratch.rendezvous(), "size=600k,mode=700") else {
        return skip("a file system of its own needs root");
    };
    let filler = scratch.rendezvous().join("filler");
    let mut random = Random::new(seed);
    let kind = if seed.is_multiple_of(2) { Server::Threads } else { Server::Events };
    let mut place = Place::with(0, kind, scratch, |_| {});
    let mut clients: Vec<Program> = (0..4).map(|_| place.client(random.next(), 8, false)).collect();
    while clients.iter_mut().any(Program::runs) {
        // As much as there is room for.
        let _ = fs::write(&filler, vec![0; 700 << 10]);
        thread::sleep(Duration::from_millis(random.below(30)));
        let _ = fs::remove_file(&filler);
        thread::sleep(Duration::from_millis(random.below(30)));
    }
    for client in clients {
        client.success();
    }
    place.settles(seed);
    place.server.kill();
    assert_eq!(place.scratch.left(), [""; 0]);
    // While something is mounted there, the folder cannot be removed.
    drop(mounted);
}

/// A file system that this thread, and the programs that it starts, see in place of a folder.
struct Mounted(CString);

impl Mounted {
    fn tmpfs(folder: &Path, options: &str) -> Option<Self> {
        let path = CString::new(folder.as_os_str().as_bytes()).expect("a path");
        let options = CString::new(options).expect("options");
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: C strings, or null where allowed.
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()) == 0
                && libc::mount(c"none".as_ptr(), path.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast())
                    == 0
        };
        mounted.then_some(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: a C string.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Before the program starts: a limit for it.
fn limited(command: &mut Command, resource: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: one system call.
    unsafe {
        command.pre_exec(move || {
            libc::setrlimit(resource, &raw const limit);
            Ok(())
        });
    }
}

pub(crate) fn few_descriptors(seed: u64) {
    let mut random = Random::new(seed);
    for (kind, most) in [(Server::Threads, 9), (Server::Events, 12)] {
        let limit = |command: &mut Command| limited(command, libc::RLIMIT_NOFILE, most);
        let mut place = Place::with(seed, kind, Scratch::new(), limit);
        let clients: Vec<Program> = (0..10).map(|_| place.client(random.next(), 3, false)).collect();
        for client in clients {
            client.success();
        }
        place.settles(seed);
    }
}

pub(crate) fn little_address_space(seed: u64) {
    let idle = Place::new(0, Server::Events);
    let status = fs::read_to_string(format!("/proc/{}/status", idle.server.pid())).expect("its status");
    let field = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let words = field.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let needed = words.expect("VmPeak") << 10;
    let mut random = Random::new(seed);
    for more in [64 << 10, 3 << 20, 9 << 20] {
        let limit = |command: &mut Command| limited(command, libc::RLIMIT_AS, needed + more);
        let mut place = Place::with(0, Server::Events, Scratch::new(), limit);
        let clients: Vec<Program> = (0..6).map(|_| place.client(random.next(), 3, false)).collect();
        for client in clients {
            client.success();
        }
        place.settles(seed);
    }
}

pub(crate) fn odd_folder(seed: u64, folder: Folder) {
    let scratch = Scratch::new();
    let meet = scratch.rendezvous().to_owned();
    let elsewhere = scratch.path().join("elsewhere");
    let remade = |mode: u32| fs::set_permissions(&meet, Permissions::from_mode(mode)).expect("chmod");
    match folder {
        Folder::Link => {
            fs::create_dir(&elsewhere).expect("a folder");
            fs::remove_dir(&meet).expect("an empty folder");
            symlink(&elsewhere, &meet).expect("a link");
        }
        Folder::File => {
            fs::remove_dir(&meet).expect("an empty folder");
            fs::write(&meet, "").expect("a file");
        }
        Folder::Open => remade(0o777),
        Folder::Unreadable => remade(0o000),
        Folder::Foreign => {
            if std::os::unix::fs::chown(&meet, Some(65534), None).is_err() {
                return skip("giving a folder away needs root");
            }
        }
        Folder::Nowhere | Folder::Deleted => {}
    }
    let mut random = Random::new(seed);
    let prepare = |command: &mut Command| {
        if matches!(folder, Folder::Nowhere) {
            command.env("SOCKSHIM_DIR", elsewhere.join("folder"));
        }
    };
    let mut place = Place::with(seed, Server::Threads, scratch, prepare);
    let clients: Vec<Program> = (0..3).map(|_| place.client(random.next(), 4, false)).collect();
    if matches!(folder, Folder::Deleted) {
        thread::sleep(Duration::from_millis(random.below(60)));
        fs::remove_dir_all(&meet).expect("the folder goes away");
    }
    for client in clients {
        client.success();
    }
    place.client(seed, 2, false).success();
    place.lives();
    match folder {
        Folder::Link => assert_eq!(fs::read_dir(&elsewhere).expect("the folder").count(), 0),
        Folder::File => {
            assert_eq!(fs::read(&meet).expect("the file"), b"");
            fs::remove_file(&meet).expect("the file");
        }
        Folder::Open | Folder::Foreign => {
            assert_eq!(
                fs::read_dir(&meet).expect("the folder").count(),
                0,
                "a folder that is not ours is used"
            );
        }
        Folder::Unreadable | Folder::Nowhere | Folder::Deleted => {}
    }
}
