//! What goes over a connection: bytes that follow from a seed and their position, both ways, checked byte by byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

/// A small deterministic generator (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A size of up to 2^`bits`, small ones as likely as big ones.
    pub(crate) fn size(&mut self, bits: u64) -> usize {
        let most = 1u64 << self.below(bits + 1);
        1 + self.below(most) as usize
    }
}

/// One direction of a conversation.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    seed: u64,
    position: u64,
}

impl Flow {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// Moves past what somebody else has seen to.
    pub(crate) fn skip(&mut self, length: u64) {
        self.position += length;
    }

    fn byte(&self, position: u64) -> u8 {
        let word = (self.seed ^ (position >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (word ^ (word >> 29)).to_le_bytes()[(position & 7) as usize]
    }

    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let from = self.position;
        self.position += length as u64;
        (from..self.position).map(|position| self.byte(position)).collect()
    }

    /// Whether `bytes` are what comes next.
    pub(crate) fn check(&mut self, bytes: &[u8]) -> Result<(), String> {
        for &byte in bytes {
            let expected = self.byte(self.position);
            if byte != expected {
                let Self { seed, position } = self;
                return Err(format!("byte {position} of stream {seed:x} is {byte:#x}, not {expected:#x}"));
            }
            self.position += 1;
        }
        Ok(())
    }
}

/// What a client wants, as the first bytes of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) seed: u64,
    /// Bytes to the server, and back: at least one, and two.
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl Request {
    pub(crate) const LENGTH: usize = 24;

    pub(crate) fn random(random: &mut Random) -> Self {
        let (up, down) = (random.size(19) as u64, 1 + random.size(19) as u64);
        Self { seed: random.next() >> 1, up, down }
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        [self.seed, self.up, self.down].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        Self { seed: word(0), up: word(8), down: word(16) }
    }

    pub(crate) fn flows(self) -> [Flow; 2] {
        [Flow::new(self.seed), Flow::new(!self.seed)]
    }

    /// Whether what comes may be anything: the client tampers with its memory.
    pub(crate) fn is_hostile(self) -> bool {
        self.seed >> 63 == 1
    }
}

/// How a conversation went that did not go well.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The connection ended: the other end may have been killed.
    Lost(io::Error),
    /// Other bytes came than were sent: never allowed.
    Wrong(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// The client's side of a conversation, both directions at once in random pieces.
pub(crate) fn converse(stream: &TcpStream, request: Request, random: &mut Random) -> Result<(), Broken> {
    let [mut up, mut down] = request.flows();
    let mut sizes = random.clone();
    thread::scope(|scope| {
        let sending = scope.spawn(move || -> io::Result<()> {
            let mut stream = stream;
            stream.write_all(&request.encode())?;
            send(stream, &mut up, request.up, &mut sizes)
        });
        let received = receive(stream, &mut down, request.down, random);
        give_up_if(stream, received.is_err());
        sending.join().expect("the sender does not panic")?;
        received?;
        stream.shutdown(Shutdown::Write)?;
        end_of(stream)
    })
}

/// The server's side, after the request has been read: first all that comes, then the answer.
pub(crate) fn answer(stream: &TcpStream, request: Request, random: &mut Random) -> Result<(), Broken> {
    let [mut up, mut down] = request.flows();
    let mut sizes = random.clone();
    thread::scope(|scope| {
        let sending = scope.spawn(move || send(stream, &mut down, request.down, &mut sizes));
        let received = receive(stream, &mut up, request.up, random);
        give_up_if(stream, received.is_err());
        sending.join().expect("the sender does not panic")?;
        received?;
        end_of(stream)
    })
}

fn send(mut stream: &TcpStream, flow: &mut Flow, mut left: u64, random: &mut Random) -> io::Result<()> {
    while left > 0 {
        let piece = (random.size(15) as u64).min(left);
        stream.write_all(&flow.take(piece as usize))?;
        left -= piece;
        pause(random);
    }
    Ok(())
}

fn receive(
    mut stream: &TcpStream,
    flow: &mut Flow,
    mut left: u64,
    random: &mut Random,
) -> Result<(), Broken> {
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let most = (random.size(16) as u64).min(left) as usize;
        match stream.read(&mut buffer[..most])? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => {
                flow.check(&buffer[..count]).map_err(Broken::Wrong)?;
                left -= count as u64;
            }
        }
        pause(random);
    }
    Ok(())
}

/// After a failure in one direction the other one is not waited for.
fn give_up_if(stream: &TcpStream, failed: bool) {
    if failed {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Nothing follows.
pub(crate) fn end_of(mut stream: &TcpStream) -> Result<(), Broken> {
    match stream.read(&mut [0; 16])? {
        0 => Ok(()),
        count => Err(Broken::Wrong(format!("{count} bytes beyond the end"))),
    }
}

fn pause(random: &mut Random) {
    if random.below(24) == 0 {
        thread::sleep(Duration::from_micros(random.below(800)));
    }
}
