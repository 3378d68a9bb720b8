//! OpenSSH: a login that sends 100 MB.

use super::{Match, Outcome, Program, Server, Stage, big_file, finish, free_port};
use crate::Trouble;
use crate::results::Measure;
use crate::workers::Placement;
use std::process::Command;

pub(super) const PROGRAM: Program = Program {
    needs: &["sshd", "ssh", "ssh-keygen"],
    user: None,
    start,
    matches: &[Match {
        row: "100 MB",
        unit: "file",
        measure: Measure::Throughput(100_000_000),
        placement: Placement::TwoCores,
        client,
        count: None,
        outcome: |_, elapsed, _| {
            Some(Outcome { ns_per_operation: elapsed.as_nanos() as f64, operations: 1.0 })
        },
    }],
};

fn start(stage: &Stage<'_>) -> Result<Server, Trouble> {
    // sshd lowers the rights of its children, and wants this folder for it.
    std::fs::create_dir_all("/run/sshd").map_err(|error| Trouble(format!("/run/sshd: {error}")))?;
    big_file(stage)?;
    for key in ["host", "key"] {
        let mut make = stage.helper("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-N", "", "-f", key]);
        finish(make)?;
    }
    let port = free_port()?;
    let folder = stage.folder.display().to_string();
    let configuration = stage.folder.join("sshd_config");
    std::fs::write(
        &configuration,
        CONFIGURATION.replace("PORT", &port.to_string()).replace("FOLDER", &folder),
    )?;
    let mut command = stage.command("sshd");
    command.args(["-D", "-e", "-f"]).arg(configuration);
    stage.serve(command, port)
}

fn client(stage: &Stage<'_>, port: u16, _: u64) -> Command {
    // Its output goes nowhere: reading it would be a part of what is measured.
    let mut command = stage.command("sh");
    command.args(["-c", "exec \"$@\" >/dev/null", "sh", "ssh"]);
    command.args(["-F", "none", "-i", "key", "-p", &port.to_string()]);
    for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=known", "LogLevel=ERROR", "BatchMode=yes"]
    {
        command.args(["-o", option]);
    }
    command.arg("127.0.0.1").arg(format!("cat {}", stage.folder.join("big").display()));
    command
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
";
