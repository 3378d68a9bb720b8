//! Several threads at each end; words: how many, and whether each has its `own` connection (round trips) or the
//! client's write to a `shared` one (one way). An operation is one message or round trip of any of them.

use crate::job::Job;
use crate::link::{Link as _, Socket};
use crate::net;
use std::thread;

pub(super) fn work(job: &Job) {
    let threads = job.number(1);
    if job.word(2) == "own" { own(job, threads) } else { shared(job, threads) }
}

fn own(job: &Job, threads: usize) {
    let sockets: Vec<_> = if job.is_server() {
        let listener = job.listen();
        (0..threads).map(|_| Socket(net::accept(listener))).collect()
    } else {
        (0..threads).map(|_| Socket(job.connect())).collect()
    };
    job.serve(sockets[0].0, |count| {
        thread::scope(|scope| {
            for (index, &(mut socket)) in sockets.iter().enumerate() {
                let server = job.is_server();
                scope.spawn(move || {
                    let mut message = [b'x'; SIZE];
                    for _ in 0..share(count, index, threads) {
                        if server {
                            socket.read_all(&mut message);
                            socket.write_all(&message);
                        } else {
                            socket.write_all(&message);
                            socket.read_all(&mut message);
                        }
                    }
                });
            }
        });
    });
}

fn shared(job: &Job, threads: usize) {
    let mut socket = job.socket();
    if job.is_server() {
        let mut buffer = vec![0; 65536];
        return job.serve(socket.0, |count| {
            let mut left = count * SIZE as u64;
            while left > 0 {
                left -= socket.read(&mut buffer) as u64;
            }
            socket.write_all(b"!");
        });
    }
    job.serve(socket.0, |count| {
        thread::scope(|scope| {
            for index in 0..threads {
                scope.spawn(move || {
                    let mut socket = socket;
                    for _ in 0..share(count, index, threads) {
                        socket.write_all(&[b'x'; SIZE]);
                    }
                });
            }
        });
        socket.push();
        socket.read_all(&mut [0]);
    });
}

/// How many of `count` operations are those of thread `index`.
fn share(count: u64, index: usize, threads: usize) -> u64 {
    let (threads, index) = (threads as u64, index as u64);
    count / threads + u64::from(index < count % threads)
}

const SIZE: usize = 64;
