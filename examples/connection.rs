//! Asks sockshim where a connection of `std::net` runs, and why.
//!
//! ```sh
//! cargo build --release --example connection
//! target/release/examples/connection                                  # everything is the kernel's
//! target/release/sockshim run -- target/release/examples/connection   # the same program on sockshim
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;

pub(crate) fn main() -> io::Result<()> {
    // Both ends are in this process, which is all that a pipe needs.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    report("connected", &client);

    round_trips(&mut client, &mut server, 1000)?;
    report("transferred", &client);

    sockshim::pin(client.as_fd());
    round_trips(&mut client, &mut server, 1000)?;
    report("pinned", &client);
    Ok(())
}

/// Sends a byte there and back, `count` times.
fn round_trips(client: &mut TcpStream, server: &mut TcpStream, count: u32) -> io::Result<()> {
    let mut byte = [0];
    for _ in 0..count {
        client.write_all(b"a")?;
        server.read_exact(&mut byte)?;
        server.write_all(&byte)?;
        client.read_exact(&mut byte)?;
    }
    Ok(())
}

fn report(when: &str, connection: &TcpStream) {
    let fd = connection.as_fd();
    let why = match sockshim::reason_of(fd) {
        Some(reason) => reason.to_string(),
        None => "this program does not run on sockshim".to_owned(),
    };
    let counters = sockshim::counters(fd);
    println!("{when}: {:?}, {why}", sockshim::path_of(fd));
    println!("  bytes sent over the pipe: {}", counters.bytes_sent);
    println!("  bytes sent through the kernel: {}", counters.kernel_bytes_sent);
}
