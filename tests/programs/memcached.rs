//! memcached with four threads, asked by a program with eight.

use std::process::Command;

use super::compatibility;
use crate::process::{Ends, Mode, Scratch, free_port, program};

#[test]
fn values_come_back_as_they_were_set() {
    let (Some(memcached), Some(python)) = (program("memcached"), program("python3")) else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let port = free_port();
        let mut server = scratch.command(ends.server, &memcached);
        // For root it asks for a name.
        server.args(["-u", "root", "-l", "127.0.0.1", "-t", "4", "-I", "2m", "-p", &port.to_string()]);
        let mut server = scratch.start(&mut server);
        server.accepts_on(port);
        let mut client = scratch.command(ends.client, &python);
        let mut client = scratch.start(client.args(["-c", CLIENT, &port.to_string()]));
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut client, port));
        assert_eq!(client.success(), "8 clients\n", "{ends:?}");
        server.signal(libc::SIGTERM);
        server.success();
        if let Some(path) = path {
            let what = "four threads, values up to 1 MB, pipelined reads";
            compatibility::record("memcached", Command::new(&memcached).arg("-V"), what, path);
        }
    }
}

const CLIENT: &str = "
import os, socket, sys, threading

def talk(number):
    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as connection:
        stream = connection.makefile('rwb')
        for i in range(500):
            value = os.urandom(1000000 if i % 50 == 0 else 1 + i * 37 % 5000)
            stream.write(b'set %d-%d 0 0 %d\\r\\n' % (number, i, len(value)) + value + b'\\r\\n')
            stream.write(b'get %d-%d\\r\\n' % (number, i))
            stream.flush()
            assert stream.readline() == b'STORED\\r\\n'
            check(stream, value)
        # Many questions before the first answer.
        stream.write(b'set last 0 0 4\\r\\nlast\\r\\n' + b'get last\\r\\n' * 1000)
        stream.flush()
        assert stream.readline() == b'STORED\\r\\n'
        for i in range(1000):
            check(stream, b'last')
    done.append(number)

def check(stream, value):
    assert stream.readline().startswith(b'VALUE ')
    assert stream.read(len(value) + 2) == value + b'\\r\\n'
    assert stream.readline() == b'END\\r\\n'

done = []
threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(done), 'clients')
";
