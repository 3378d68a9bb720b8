//! Long streams, checked byte by byte.

use std::thread;

use crate::data::Flow;
use crate::harness::{Case, End, Environment, assert_on_pipe, dialogue};

pub(crate) const CASES: &[Case] = &[
    dialogue("one_gb", |end| send(end, 1 << 30), |end| receive(end, 1 << 30))
        .only(&[Environment::Host, Environment::Default])
        .within_seconds(300),
    dialogue("a_quarter_gb", |end| send(end, 1 << 28), |end| receive(end, 1 << 28))
        .only(&[Environment::Pipe, Environment::Midstream, Environment::Small])
        .within_seconds(300),
    dialogue("64_mb_both_ways", |end| both(end, 1, 2), |end| both(end, 2, 1)).within_seconds(120),
];

fn send(end: &End, total: usize) {
    let mut flow = Flow::new(1);
    flow.write(end.fd, total, 100_000);
    assert_on_pipe(end.fd);
    end.close();
    end.hear();
}

fn receive(end: &End, total: usize) {
    assert_eq!(Flow::new(1).read_to_end(end.fd, 300_000), total);
    end.tell();
}

fn both(end: &End, out: usize, back: usize) {
    thread::scope(|scope| {
        scope.spawn(|| Flow::new(out).write(end.fd, 64 << 20, 150_000));
        Flow::new(back).read(end.fd, 64 << 20, 200_000);
    });
    end.tell();
    end.hear();
}
