//! OpenSSH: sshd with keys of its own, ssh and scp. Its children put system call filters on themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{assert_same_content, big_file, compatibility};
use crate::process::{Ends, Mode, Program, Scratch, free_port, program, skip};

#[test]
fn a_login_runs_a_command_and_tells_how_it_ended() {
    let Some(ssh) = Ssh::find() else { return };
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (server, port) = ssh.server(&scratch, ends.server);
        let mut login = ssh.client(&scratch, ends.client, &ssh.ssh, "-p", port);
        assert_eq!(scratch.output(login.args(["127.0.0.1", "echo hello; echo there"])), "hello\nthere\n");
        let mut login = ssh.client(&scratch, ends.client, &ssh.ssh, "-p", port);
        assert_eq!(scratch.start(login.args(["127.0.0.1", "exit 7"])).failure().code(), Some(7));
        let mut login = ssh.client(&scratch, ends.client, &ssh.ssh, "-p", port);
        let said = scratch.output(login.args(["-tt", "127.0.0.1", "test -t 0 && echo a terminal"]));
        assert_eq!(said, "a terminal\r\n", "{ends:?}");
        server.kill();
    }
}

#[test]
#[ignore = "slow: make test-slow"]
fn a_large_file_is_copied_both_ways() {
    let Some(ssh) = Ssh::find() else { return };
    let big = big_file(100_000_000);
    for ends in Ends::ALL {
        let scratch = Scratch::new();
        let (server, port) = ssh.server(&scratch, ends.server);
        let there = scratch.path().join("there");
        let mut copy = ssh.client(&scratch, ends.client, &ssh.scp, "-P", port);
        let mut copy = scratch.start(copy.arg(&big).arg(format!("127.0.0.1:{}", there.display())));
        let path = (ends.client, ends.server) == (Mode::AtOnce, Mode::AtOnce);
        let path = path.then(|| compatibility::path(&scratch, &mut copy, port));
        copy.success();
        assert_same_content(&there, &big);
        for way in ["-O", "-s"] {
            let mut copy = ssh.client(&scratch, ends.client, &ssh.scp, "-P", port);
            scratch.output(copy.arg(way).arg(format!("127.0.0.1:{}", there.display())).arg("back"));
            assert_same_content(&scratch.path().join("back"), &big);
        }
        server.kill();
        if let Some(path) = path {
            let what = "sshd with its sandbox, login with a key, a terminal, scp and sftp of 100 MB";
            compatibility::record("OpenSSH", Command::new(&ssh.ssh).arg("-V"), what, path);
        }
    }
}

struct Ssh {
    sshd: PathBuf,
    ssh: PathBuf,
    scp: PathBuf,
    keygen: PathBuf,
}

impl Ssh {
    fn find() -> Option<Self> {
        let found = Self {
            sshd: program("sshd")?,
            ssh: program("ssh")?,
            scp: program("scp")?,
            keygen: program("ssh-keygen")?,
        };
        // sshd lowers the rights of its children, and wants this folder for it.
        if std::fs::create_dir_all("/run/sshd").is_err() {
            skip("sshd runs as root only");
            return None;
        }
        Some(found)
    }

    fn server(&self, scratch: &Scratch, mode: Mode) -> (Program, u16) {
        let port = free_port();
        for key in ["host", "key"] {
            let mut make = scratch.command(Mode::Native, &self.keygen);
            scratch.output(make.args(["-q", "-t", "ed25519", "-N", "", "-f", key]));
        }
        let folder = scratch.path().display().to_string();
        let configuration = CONFIGURATION.replace("PORT", &port.to_string()).replace("FOLDER", &folder);
        let configuration = scratch.file("sshd_config", configuration);
        let mut command = scratch.command(mode, &self.sshd);
        let mut server = scratch.start(command.args(["-D", "-e", "-f"]).arg(configuration));
        server.accepts_on(port);
        (server, port)
    }

    fn client(&self, scratch: &Scratch, mode: Mode, program: &Path, port_option: &str, port: u16) -> Command {
        let mut command = scratch.command(mode, program);
        // scp starts ssh from PATH.
        command.args(["-F", "none", "-i", "key", port_option, &port.to_string()]);
        for option in
            ["StrictHostKeyChecking=no", "UserKnownHostsFile=known", "LogLevel=ERROR", "BatchMode=yes"]
        {
            command.args(["-o", option]);
        }
        command
    }
}

const CONFIGURATION: &str = "
Port PORT
ListenAddress 127.0.0.1
HostKey FOLDER/host
AuthorizedKeysFile FOLDER/key.pub
StrictModes no
UsePAM no
PidFile none
PasswordAuthentication no
PermitRootLogin yes
Subsystem sftp internal-sftp
";
