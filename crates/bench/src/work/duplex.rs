//! Both directions at once, with non-blocking calls and `poll`; word: the size of a message. An operation is a
//! message each way.

use crate::job::Job;
use crate::link::Link;
use crate::net;

pub(super) fn work(job: &Job) {
    if job.has_ring() {
        return run(job, job.ring());
    }
    let socket = job.socket();
    net::set_nonblocking(socket.0);
    run(job, socket);
}

fn run(job: &Job, link: impl Link) {
    let message = vec![b'x'; job.number(1)];
    let mut buffer = vec![0; message.len().max(65536)];
    job.serve_over(link, |link, count| {
        let total = count * message.len() as u64;
        let (mut sent, mut received) = (0, 0);
        while sent < total || received < total {
            let mut moved = 0;
            if sent < total {
                let n = link.try_write(&message[(sent % message.len() as u64) as usize..]);
                sent += n as u64;
                moved += n;
            }
            if received < total {
                // Not into what the other end sends in its next round.
                let most = buffer.len().min((total - received) as usize);
                let n = link.try_read(&mut buffer[..most]);
                received += n as u64;
                moved += n;
            }
            if moved == 0 {
                link.wait(sent < total);
            }
        }
    });
}
