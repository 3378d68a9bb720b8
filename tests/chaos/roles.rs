//! The programs of a storm: this executable again, told by its environment what to be. Under preload the standard
//! library's sockets are sockshim's.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, process, thread};

use crate::traffic::{Broken, Flow, Random, Request, answer, converse};
use crate::{carriers, hostile};

/// What this process is; `None`: the test.
pub(crate) fn assigned() -> Option<ExitCode> {
    let role = env::var("CHAOS_ROLE").ok()?;
    // A panic in any thread is the end of the process.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        process::abort();
    }));
    match role.as_str() {
        "threads" => serve_with_threads(),
        "events" => serve_with_events(),
        "forks" => serve_with_children(),
        "carriers" => carriers::serve(),
        "carrier" => carriers::be_carrier(),
        "helper" => carriers::help(),
        "client" => be_client(),
        "victim" => be_victim(),
        "scribbler" => hostile::scribble_on_own_segments(),
        "vandal" => hostile::scribble_on_table(),
        "births" => give_births(),
        other => panic!("what is {other}?"),
    }
    Some(ExitCode::SUCCESS)
}

pub(crate) fn setting(name: &str) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{name} is not set"))
}

/// A listener on a port of the kernel's choice, which is told on standard output.
pub(crate) fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    println!("listening on port {}", listener.local_addr().expect("its address").port());
    listener
}

/// Wrong bytes end the server; a lost connection is the client's death.
pub(crate) fn judge(result: Result<(), Broken>, request: Request) {
    match result {
        Err(Broken::Wrong(what)) if !request.is_hostile() => {
            eprintln!("WRONG: {what}");
            process::exit(3);
        }
        _ => {}
    }
}

fn serve_one(stream: &TcpStream) {
    let mut head = [0; Request::LENGTH];
    let mut reader = stream;
    if reader.read_exact(&mut head).is_err() {
        return;
    }
    let request = Request::decode(&head);
    judge(answer(stream, request, &mut Random::new(request.seed)), request);
}

fn serve_with_threads() {
    let listener = listen();
    loop {
        match listener.accept() {
            Ok((stream, _)) => drop(thread::Builder::new().spawn(move || serve_one(&stream))),
            // No descriptor is free.
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Four children accept; one that is killed is replaced.
fn serve_with_children() {
    let listener = listen();
    let mut children = 0;
    loop {
        while children < 4 {
            // SAFETY: this process has one thread.
            match unsafe { libc::fork() } {
                0 => loop {
                    if let Ok((stream, _)) = listener.accept() {
                        serve_one(&stream);
                    }
                },
                child => println!("child {child}"),
            }
            children += 1;
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        unsafe { libc::wait(&raw mut status) };
        if libc::WIFEXITED(status) {
            process::exit(libc::WEXITSTATUS(status));
        }
        children -= 1;
    }
}

/// One thread and an edge-triggered set, the shape of an event-driven server.
fn serve_with_events() {
    // SAFETY: takes no pointers.
    let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    let listener = listen();
    listener.set_nonblocking(true).expect("non-blocking");
    let add = |fd: i32, events: i32| {
        let mut event = libc::epoll_event { events: events as u32, u64: fd as u64 };
        // SAFETY: `event` lives across the call.
        assert_eq!(unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) }, 0);
    };
    add(listener.as_raw_fd(), libc::EPOLLIN);
    let mut open = HashMap::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
    loop {
        // SAFETY: there is room for 16 events.
        let count = unsafe { libc::epoll_wait(set, events.as_mut_ptr(), 16, -1) };
        for event in &events[..count.max(0) as usize] {
            let fd = event.u64 as i32;
            if fd == listener.as_raw_fd() {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(true).expect("non-blocking");
                        let fd = stream.as_raw_fd();
                        add(fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET);
                        open.insert(fd, Session::new(stream));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            } else if open.get_mut(&fd).is_some_and(|session| session.is_over()) {
                open.remove(&fd);
            }
        }
    }
}

/// A conversation of an event-driven server.
struct Session {
    stream: TcpStream,
    head: Vec<u8>,
    request: Option<(Request, Flow, Flow)>,
    /// Bytes still to come and to go, and those that are being sent.
    up: u64,
    down: u64,
    pending: Vec<u8>,
}

impl Session {
    fn new(stream: TcpStream) -> Self {
        Self { stream, head: Vec::new(), request: None, up: 0, down: 0, pending: Vec::new() }
    }

    /// Goes on as far as it can without waiting; true when there is nothing more to do.
    fn is_over(&mut self) -> bool {
        match self.go_on() {
            Ok(over) => over,
            Err(Broken::Lost(error)) => error.kind() != io::ErrorKind::WouldBlock,
            Err(wrong) => {
                if let Some((request, ..)) = self.request {
                    judge(Err(wrong), request);
                }
                true
            }
        }
    }

    fn go_on(&mut self) -> Result<bool, Broken> {
        let mut buffer = [0; 40_000];
        loop {
            let wrote = self.write_some()?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(count) => self.take(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && wrote => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// False when there is nothing to write or no room.
    fn write_some(&mut self) -> Result<bool, Broken> {
        let Some((_, _, flow)) = &mut self.request else { return Ok(false) };
        if self.pending.is_empty() {
            let piece = self.down.min(20_000);
            self.pending = flow.take(piece as usize);
            self.down -= piece;
        }
        if self.pending.is_empty() {
            return Ok(false);
        }
        match self.stream.write(&self.pending) {
            Ok(count) => {
                self.pending.drain(..count);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Broken> {
        if self.request.is_none() {
            let missing = (Request::LENGTH - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.head.len() == Request::LENGTH {
                let request = Request::decode(&self.head);
                let [up, down] = request.flows();
                (self.up, self.down) = (request.up, request.down);
                self.request = Some((request, up, down));
            }
        }
        let Some((_, flow, _)) = &mut self.request else { return Ok(()) };
        if bytes.len() as u64 > self.up {
            return Err(Broken::Wrong("bytes beyond the end".to_owned()));
        }
        self.up -= bytes.len() as u64;
        flow.check(bytes).map_err(Broken::Wrong)
    }
}

/// So many conversations, one after the other. Wrong bytes are never tolerated; a lost connection only where the
/// storm may have killed the other end.
fn be_client() {
    let port = setting("CHAOS_PORT") as u16;
    let tolerant = setting("CHAOS_TOLERANT") == 1;
    let mut random = Random::new(setting("CHAOS_SEED"));
    let (mut finished, mut lost) = (0, 0);
    for _ in 0..setting("CHAOS_COUNT") {
        let request = Request::random(&mut random);
        let result = TcpStream::connect(("127.0.0.1", port))
            .map_err(Broken::from)
            .and_then(|stream| converse(&stream, request, &mut random));
        match result {
            Ok(()) => finished += 1,
            Err(Broken::Lost(_)) if tolerant => lost += 1,
            Err(broken) => {
                eprintln!("{broken:?} in {request:?}");
                process::exit(3);
            }
        }
    }
    println!("finished {finished}, lost {lost}");
}

/// Conversations with a server whose memory somebody spoils.
fn be_victim() {
    let port = setting("CHAOS_PORT") as u16;
    let mut random = Random::new(setting("CHAOS_SEED"));
    loop {
        let mut request = Request::random(&mut random);
        request.seed |= 1 << 63;
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            let timeout = Some(Duration::from_millis(500));
            let limited = stream.set_read_timeout(timeout).and_then(|()| stream.set_write_timeout(timeout));
            limited.expect("time-outs");
            let _ = converse(&stream, request, &mut random);
        }
    }
}

/// Children that are killed before they have run.
fn give_births() {
    let stream = TcpStream::connect(("127.0.0.1", setting("CHAOS_PORT") as u16)).expect("connect");
    for _ in 0..300 {
        // SAFETY: this process has one thread; the child makes one call.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: always allowed.
                unsafe { libc::pause() };
            },
            // SAFETY: takes no pointers but null.
            child => unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, std::ptr::null_mut(), 0);
            },
        }
    }
    let mut random = Random::new(setting("CHAOS_SEED"));
    let request = Request { seed: 1, up: 100_000, down: 100_000 };
    converse(&stream, request, &mut random).expect("a conversation");
    let path: Option<extern "C" fn(i32) -> i32> = {
        // SAFETY: the name is a C string.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"sockshim_path".as_ptr()) };
        // SAFETY: the header declares it so.
        (!symbol.is_null()).then(|| unsafe { std::mem::transmute(symbol) })
    };
    assert_eq!(path.map(|path| path(stream.as_raw_fd())), Some(1), "not on a pipe");
}
