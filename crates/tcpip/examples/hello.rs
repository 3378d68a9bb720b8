//! Two sockets of one stack say hello to each other over its loopback: the smallest program that does something.
//!
//! ```sh
//! cargo run -p sockshim-tcpip --example hello
//! ```

use std::net::SocketAddr;
use std::time;

use sockshim_tcpip::buffer::VecMemory;
use sockshim_tcpip::error::Error;
use sockshim_tcpip::stack::{Config, ConnectOptions, Event, SocketId, Stack};
use sockshim_tcpip::tcp::How;
use sockshim_tcpip::time::Instant;

fn main() -> Result<(), Error> {
    // Numbers of connections are made of the secret: it must be random where somebody else can send packets.
    let mut stack = Stack::new(Config::default(), VecMemory::default(), [1, 2, 3, 4]);
    let start = time::Instant::now();
    let now = || Instant::from_nanos(start.elapsed().as_nanos() as u64);

    let address = SocketAddr::from(([127, 0, 0, 1], 7000));
    let listener = stack.listen(address, 8, None)?;
    let client = stack.connect(now(), address, ConnectOptions::default())?;

    let mut frame = Vec::new();
    loop {
        let mut quiet = true;
        // Nothing leaves the loopback: this moves the packets from one socket to the other.
        while stack.poll_transmit(now(), &mut frame).is_some() {}
        while let Some(event) = stack.poll_event() {
            quiet = false;
            match event {
                Event::Connected(id) if id == client => {
                    stack.send(now(), client, b"hello")?;
                    stack.shutdown(now(), client, How::Write)?;
                }
                Event::Acceptable(_) => {
                    let (_, remote) = stack.accept(now(), listener)?;
                    println!("accepted {remote}");
                }
                Event::Readable(id) => {
                    let name = if id == client { "client" } else { "server" };
                    if read(&mut stack, now(), id, name)? {
                        stack.close(now(), id);
                        if id == client {
                            return Ok(());
                        }
                    }
                }
                Event::Failed(_, error) => return Err(error),
                _ => {}
            }
        }
        if quiet {
            // A program with something else to do waits for that, or for its links, no longer than until `poll_timeout`.
            if let Some(at) = stack.poll_timeout() {
                std::thread::sleep(at.saturating_duration_since(now()));
            }
            stack.handle_timeout(now());
        }
    }
}

/// Reads what there is, and answers if that is for the server. Says whether the stream has ended.
fn read(stack: &mut Stack<VecMemory>, now: Instant, id: SocketId, name: &str) -> Result<bool, Error> {
    let mut data = [0; 100];
    loop {
        match stack.recv(now, id, &mut data) {
            Ok(0) => return Ok(true),
            Ok(count) => {
                println!("{name} reads: {}", String::from_utf8_lossy(&data[..count]));
                if name == "server" {
                    stack.send(now, id, b"hello yourself")?;
                }
            }
            Err(Error::WouldBlock) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
