//! The catalogue of all questions, by name.

use crate::backend::{Backend, Under};
use crate::programs::{self, Program};
use crate::question::{Effort, Question};
use crate::results::{Measure, Row};
use crate::run::Run;
use crate::workers::Placement;
use crate::{Trouble, net};

/// Questions that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The name of the group on the command line.
    pub name: &'static str,
    /// What the group measures, in words.
    pub title: &'static str,
    /// Whether they are asked when the command names no question.
    pub usual: bool,
    asks: Asks,
}

#[derive(Clone, Copy, Debug)]
enum Asks {
    Workers(fn() -> Vec<Question>),
    Program(Program),
}

/// All groups, in the order in which they are asked.
pub const GROUPS: [Group; 26] = [
    Group::usual("pingpong", "a message there and back, blocking calls", pingpong),
    Group::usual("messages", "messages one way, read one by one", messages),
    Group::usual("stream", "writes one way, read as they come", stream),
    Group::usual("duplex", "both directions at once, non-blocking calls and poll", duplex),
    Group::usual("connect", "short connections", connect),
    Group::usual(
        "connections",
        "64 B requests, one under way on each connection, epoll at both ends",
        connections,
    ),
    Group::usual("epoll", "64 B there and back, idle connections in the server's epoll set", epoll),
    Group::usual("poll", "64 B there and back, the server waits in poll or select", poll),
    Group::usual("threads", "64 B, several threads at each end", threads),
    Group::usual("asleep", "64 B there and back without spinning", asleep),
    Group::usual(
        "contended",
        "64 B there and back, more who want to run than cores: busy pairs of processes, and strangers who compute",
        contended,
    ),
    Group::usual("paced", "CPU time of 64 B there and back, with time to think before each", paced),
    Group::usual("passthrough", "calls on descriptors that are not sockshim's business", passthrough),
    Group::usual("memory", "memory of an idle connection, beyond the kernel's socket", memory),
    Group::on_request("host", "connections that cannot use a pipe", host),
    Group::on_request("free", "not pinned: wherever the scheduler puts the ends", free),
    Group::on_request("upgrade", "time per connection, by round trips and SOCKSHIM_UPGRADE_AFTER", upgrade),
    Group::on_request("upgrade-two-cores", "the same on two cores", upgrade_two_cores),
    Group::program("redis", "redis-server and redis-benchmark", programs::REDIS),
    Group::program("nginx", "nginx with one process, and wrk", programs::NGINX),
    Group::program("memcached", "memcached and memcslap", programs::MEMCACHED),
    Group::program("postgres", "PostgreSQL and pgbench", programs::POSTGRES),
    Group::program("sockperf", "sockperf over TCP", programs::SOCKPERF),
    Group::program("iperf3", "iperf3", programs::IPERF3),
    Group::program("python", "Python's http.server and curl", programs::PYTHON),
    Group::program("ssh", "sshd, and ssh that receives a file", programs::SSH),
];

impl Group {
    const fn usual(name: &'static str, title: &'static str, make: fn() -> Vec<Question>) -> Self {
        Self { name, title, usual: true, asks: Asks::Workers(make) }
    }

    const fn on_request(name: &'static str, title: &'static str, make: fn() -> Vec<Question>) -> Self {
        Self { name, title, usual: false, asks: Asks::Workers(make) }
    }

    const fn program(name: &'static str, title: &'static str, program: Program) -> Self {
        Self { name, title, usual: false, asks: Asks::Program(program) }
    }

    /// Whether it is about an existing program.
    #[must_use]
    pub fn is_program(&self) -> bool {
        matches!(self.asks, Asks::Program(_))
    }

    /// What must be installed, and is not.
    #[must_use]
    pub fn lacks(&self) -> Option<&'static str> {
        match &self.asks {
            Asks::Program(program) => program.lacks(),
            Asks::Workers(_) => None,
        }
    }

    /// Asks all its questions, or fewer for a rough idea; `each` takes the answers as they come, with the row.
    pub fn ask(&self, run: &Run, mut each: impl FnMut(&str, Result<Row, Trouble>)) {
        match &self.asks {
            Asks::Workers(_) => {
                let questions = self.questions(run.quick);
                let control = questions.first().cloned().map(Question::control);
                for question in questions.into_iter().chain(control) {
                    each(&question.row, question.ask(run));
                }
            }
            Asks::Program(program) => {
                if let Err(trouble) = program.ask(run, self.name, &mut each) {
                    each("start", Err(trouble));
                }
            }
        }
    }

    /// The questions of a group, unless it is about a program.
    #[must_use]
    pub fn questions(&self, quick: bool) -> Vec<Question> {
        let Asks::Workers(make) = self.asks else { return Vec::new() };
        let mut questions = make();
        questions.retain(|question| !(quick && question.thorough));
        questions.into_iter().map(Question::where_there_are_cores).collect()
    }
}

/// The most important questions, described in words.
#[must_use]
pub fn that_say_most() -> [(&'static str, Question); 3] {
    let ask =
        |group: &'static str, size: &str| Question::new(group, size, &["stream", size, "come"]).unit("write");
    let questions = [
        ("ping-pong, 64 bytes", Question::new("pingpong", "64", &["pingpong", "64", "0"])),
        ("messages one way, 64 bytes", ask("stream", "64").measure(Measure::Rate)),
        ("stream, writes of 64 KB", ask("stream", "65536").measure(Measure::Throughput(65536))),
    ];
    questions.map(|(title, question)| (title, question.where_there_are_cores()))
}

fn pingpong() -> Vec<Question> {
    let ask = |row: &str, size: &str| Question::new("pingpong", row, &["pingpong", size, "0"]);
    vec![
        ask("1 B", "1").thorough(),
        ask("64 B", "64"),
        ask("1 KB", "1024"),
        ask("4 KB", "4096").thorough(),
        ask("16 KB", "16384"),
        ask("64 KB", "65536"),
        Question::new("pingpong", "64 B, epoll at both ends", &["waits", "epoll", "0", "both"]),
        ask("64 B, both on one core", "64").on_one_core(),
        ask("16 KB, both on one core", "16384").on_one_core().thorough(),
    ]
}

fn messages() -> Vec<Question> {
    let ask = |row: &str, size: &str| {
        Question::new("messages", row, &["stream", size, "each"]).unit("message").measure(Measure::Rate)
    };
    vec![
        ask("64 B", "64"),
        ask("256 B", "256").thorough(),
        ask("1 KB", "1024"),
        ask("4 KB", "4096").thorough(),
        ask("16 KB", "16384").thorough(),
        ask("64 KB", "65536").thorough(),
        ask("64 B, both on one core", "64").on_one_core().thorough(),
    ]
}

fn stream() -> Vec<Question> {
    let ask = |row: &str, size: u64| {
        Question::new("stream", row, &["stream", &size.to_string(), "come"])
            .unit("write")
            .measure(if size < 1024 { Measure::Rate } else { Measure::Throughput(size) })
    };
    let bulk = |row: &str, size| {
        let [pieces, past_caches] = Backend::BULK;
        ask(row, size).backends(&[Backend::LIBC, Backend::SOCKSHIM, Backend::RING, pieces, past_caches])
    };
    let from_loop = |row: &str, size: u64| {
        Question::new("stream", row, &["stream", &size.to_string(), "loop"])
            .unit("write")
            .measure(Measure::Throughput(size))
            .backends(&[Backend::LIBC, Backend::SOCKSHIM])
            .settled_after((256 << 20) / size)
    };
    vec![
        ask("64 B", 64),
        bulk("1 KB", 1 << 10).thorough(),
        bulk("4 KB", 4 << 10).thorough(),
        bulk("16 KB", 16 << 10),
        bulk("64 KB", 64 << 10),
        bulk("256 KB", 256 << 10).thorough(),
        bulk("1 MB", 1 << 20),
        from_loop("64 KB, non-blocking", 64 << 10).thorough(),
        from_loop("16 MB, non-blocking", 16 << 20),
        ask("64 B, both on one core", 64).on_one_core(),
        ask("64 KB, both on one core", 64 << 10).on_one_core(),
    ]
}

fn duplex() -> Vec<Question> {
    let ask = |row: &str, size: u64| {
        let [pieces, past_caches] = Backend::BULK;
        Question::new("duplex", row, &["duplex", &size.to_string()])
            .unit("message each way")
            .measure(if size < 1024 { Measure::Rate } else { Measure::Throughput(2 * size) })
            .backends(&[Backend::LIBC, Backend::SOCKSHIM, Backend::RING, pieces, past_caches])
    };
    vec![ask("64 B", 64), ask("64 KB", 64 << 10)]
}

fn connect() -> Vec<Question> {
    let ask = |row: &str, word: &str| {
        Question::new("connect", row, &["connect", word])
            .unit("connection")
            .placed(Placement::Free)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM])
            .settled()
    };
    vec![
        ask("connect, accept, close", "0"),
        ask("64 B each way", "1").thorough(),
        ask("one HTTP request", "http"),
        ask("one HTTP request, on two cores", "http").placed(Placement::TwoCores).thorough(),
    ]
}

fn connections() -> Vec<Question> {
    let ask = |count: &str| {
        Question::new("connections", format!("{count} connections"), &["connections", count])
            .unit("request")
            .measure(Measure::Rate)
            .settled_after(20_000)
    };
    vec![ask("1").thorough(), ask("4"), ask("16").thorough(), ask("64")]
}

fn epoll() -> Vec<Question> {
    // What else a worker has open is a handful.
    let most = net::raise_descriptor_limit().saturating_sub(64);
    let ask = |wanted: u64| {
        let idle = wanted.min(most);
        let note = if idle < wanted { " (all that RLIMIT_NOFILE allows)" } else { "" };
        Question::new("epoll", format!("{idle} idle{note}"), &["waits", "epoll", &idle.to_string(), "server"])
    };
    vec![ask(10), ask(1_000), ask(10_000)]
}

fn poll() -> Vec<Question> {
    let ask = |call: &str, idle: &str| {
        Question::new("poll", format!("{call}, {idle} idle"), &["waits", call, idle, "server"])
    };
    vec![
        ask("poll", "0"),
        ask("poll", "100"),
        ask("select", "0").thorough(),
        ask("select", "100"),
        Question::new("poll", "poll at both ends", &["waits", "poll", "0", "both"]).thorough(),
    ]
}

fn threads() -> Vec<Question> {
    let ask = |row: &str, threads: &str, kind: &str| {
        Question::new("threads", row, &["threads", threads, kind])
            .placed(Placement::Free)
            .measure(Measure::Rate)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM])
            .settled_after(20_000)
    };
    vec![
        ask("2 threads, a connection each", "2", "own").thorough(),
        ask("4 threads, a connection each", "4", "own"),
        ask("2 threads write to one connection", "2", "shared").unit("message").thorough(),
        ask("4 threads write to one connection", "4", "shared").unit("message"),
    ]
}

fn asleep() -> Vec<Question> {
    let ask = |row: &str| {
        Question::new("asleep", row, &["pingpong", "64", "0"])
            .backends(&[Backend::LIBC, Backend::ASLEEP, Backend::SLEEPING_RING])
            .settled_after(500)
    };
    vec![ask("on two cores"), ask("both on one core").placed(Placement::OneCore)]
}

fn contended() -> Vec<Question> {
    let beside = |what: &str, words: &[&str], pairs: usize, strangers: usize, nice: i32| {
        let priority = match nice {
            ..0 => " of higher priority",
            0 => "",
            1.. => " of lower priority",
        };
        let row = format!(
            "{what}, {strangers} {}{priority}",
            if strangers == 1 { "stranger" } else { "strangers" }
        );
        let [safe, latency, throughput] = Backend::PROFILES;
        Question::new("contended", row, words)
            .pairs(pairs)
            .placed(Placement::Free)
            .beside(strangers, nice)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM, safe, latency, throughput])
            .measure(Measure::Rate)
            .effort(Effort::Crowded)
    };
    let blocking = ["pingpong", "64", "0"];
    let epoll = ["waits", "epoll", "0", "both"];
    let mut questions = vec![
        Question::new("contended", "four pairs", &["pingpong", "64", "0"])
            .pairs(4)
            .placed(Placement::Free)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM, Backend::YIELDING_RING])
            .measure(Measure::Rate),
        Question::new("contended", "four pairs, 64 KB one way", &["stream", "65536", "come"])
            .pairs(4)
            .placed(Placement::Free)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM, Backend::YIELDING_RING])
            .unit("write")
            .measure(Measure::Throughput(65536))
            .thorough(),
        beside("one pair", &blocking, 1, 1, 0),
        beside("one pair", &blocking, 1, 2, 0).thorough(),
        beside("one pair", &blocking, 1, 4, 0),
        beside("one pair", &blocking, 1, 8, 0).thorough(),
        // Where the scheduler puts the ends is luck, and decides more than who carries the bytes: so each of the two by itself.
        beside("one pair on one core", &blocking, 1, 4, 0).placed(Placement::OneCore).thorough(),
        beside("one pair on two cores", &blocking, 1, 4, 0).placed(Placement::TwoCores).thorough(),
        beside("one pair", &blocking, 1, 2, 5).thorough(),
        beside("eight pairs", &blocking, 8, 4, 0).thorough(),
        beside("fifty pairs", &blocking, 50, 8, 0).thorough(),
        beside("one pair, epoll", &epoll, 1, 2, 0),
        beside("one pair, epoll", &epoll, 1, 8, 0).thorough(),
        beside("eight pairs, epoll", &epoll, 8, 4, 0).thorough(),
        beside("fifty pairs, epoll", &epoll, 50, 8, 0).thorough(),
        beside("one pair, poll", &["waits", "poll", "0", "both"], 1, 2, 0).thorough(),
        beside("four threads at each end", &["threads", "4", "own"], 1, 4, 0).thorough(),
    ];
    if net::may_raise_priority() {
        questions.push(beside("one pair", &blocking, 1, 2, -4).thorough());
    }
    questions
}

fn paced() -> Vec<Question> {
    let ask = |row: &str, think: &str, placement| {
        Question::new("paced", row, &["pingpong", "64", think])
            .placed(placement)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM, Backend::SLEEPING_RING])
            .measure(Measure::Cpu)
            .effort(Effort::Long)
            .settled_after(500)
    };
    vec![
        ask("think time 100 us", "100", Placement::TwoCores),
        ask("think time 1 ms", "1000", Placement::TwoCores),
        ask("think time 100 us, both on one core", "100", Placement::OneCore).thorough(),
        ask("think time 1 ms, both on one core", "1000", Placement::OneCore).thorough(),
    ]
}

fn passthrough() -> Vec<Question> {
    let ask = |row: &str, word: &str| {
        Question::new("passthrough", row, &["passthrough", word])
            .unit(if row.contains(" and ") { "pair of calls" } else { "call" })
            .measure(Measure::Call)
            .alone()
            .placed(Placement::OneCore)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM])
            .effort(Effort::Fine)
            .settled()
    };
    vec![
        ask("write, /dev/null", "null"),
        ask("read, /dev/zero", "zero"),
        ask("write and read, pipe", "pipe"),
        ask("write and read, eventfd", "eventfd").thorough(),
        ask("send and recv, Unix socket", "unix").thorough(),
        ask("getsockopt, UDP socket", "getsockopt").thorough(),
        ask("poll, eventfd", "poll"),
        ask("epoll_wait, eventfd", "epoll"),
    ]
}

fn memory() -> Vec<Question> {
    let count = net::raise_descriptor_limit().saturating_sub(64).min(500).to_string();
    let ask = |row: &str, part: &str| {
        Question::new("memory", row, &["memory", &count, part])
            .unit("connection")
            .measure(Measure::Memory)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM])
            .effort(Effort::Once)
    };
    vec![
        ask("in all", "all"),
        ask("private pages of both ends", "private").thorough(),
        ask("page tables of both ends", "tables").thorough(),
        ask("shared pages", "shared").thorough(),
    ]
}

fn host() -> Vec<Question> {
    const BACKENDS: [Backend; 4] = [Backend::LIBC, Backend::HOST, Backend::SERVER_ONLY, Backend::CLIENT_ONLY];
    vec![
        Question::new("host", "64 B there and back", &["pingpong", "64", "0"]).backends(&BACKENDS),
        Question::new("host", "64 KB one way", &["stream", "65536", "come"])
            .unit("write")
            .measure(Measure::Throughput(65536))
            .backends(&BACKENDS),
        Question::new("host", "connect, accept, close", &["connect", "0"])
            .unit("connection")
            .placed(Placement::Free)
            .backends(&BACKENDS)
            .settled(),
    ]
}

fn free() -> Vec<Question> {
    vec![
        Question::new("free", "64 B there and back", &["pingpong", "64", "0"])
            .placed(Placement::Free)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM]),
        Question::new("free", "64 B one way", &["stream", "64", "come"])
            .placed(Placement::Free)
            .unit("write")
            .measure(Measure::Rate)
            .backends(&[Backend::LIBC, Backend::SOCKSHIM]),
        Question::new("free", "64 KB one way", &["stream", "65536", "come"])
            .placed(Placement::Free)
            .unit("write")
            .measure(Measure::Throughput(65536))
            .backends(&[Backend::LIBC, Backend::SOCKSHIM]),
    ]
}

fn upgrade() -> Vec<Question> {
    let trips = [1, 2, 4, 8, 16, 32, 64, 128, 256];
    trips.iter().map(|&trips| lives("upgrade", trips, Placement::Free)).collect()
}

fn upgrade_two_cores() -> Vec<Question> {
    let trips = [4, 8, 16, 32, 64];
    trips.iter().map(|&trips| lives("upgrade-two-cores", trips, Placement::TwoCores)).collect()
}

fn lives(group: &'static str, trips: u32, placement: Placement) -> Question {
    const fn after(name: &'static str, variables: &'static [(&'static str, &'static str)]) -> Backend {
        Backend::both(name, Under::Sockshim(variables))
    }
    /// A round trip is two calls and 128 bytes at each end, so bytes stand for calls here.
    const BACKENDS: [Backend; 9] = [
        Backend::LIBC,
        after("default", &[]),
        after("at once", &[("SOCKSHIM_UPGRADE_AFTER", "0")]),
        after("4 calls", &[("SOCKSHIM_UPGRADE_AFTER", "256")]),
        after("8 calls", &[("SOCKSHIM_UPGRADE_AFTER", "512")]),
        after("16 calls", &[("SOCKSHIM_UPGRADE_AFTER", "1024")]),
        after("32 calls", &[("SOCKSHIM_UPGRADE_AFTER", "2048")]),
        after("128 calls", &[("SOCKSHIM_UPGRADE_AFTER", "8192")]),
        after("256 calls", &[("SOCKSHIM_UPGRADE_AFTER", "16384")]),
    ];
    let trips = trips.to_string();
    Question::new(group, &trips, &["connect", &trips])
        .unit("connection")
        .placed(placement)
        .backends(&BACKENDS)
        .settled()
}
