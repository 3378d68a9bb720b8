//! What a case that hangs is doing, told before it is killed: each thread's state and place, and what its connections say.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The processes of a group, thread by thread, and the connections whose rendezvous folder is `folder`.
pub(crate) fn report(group: u32, folder: &Path) -> String {
    let mut text = String::new();
    for process in numbers(Path::new("/proc")).filter(|process| group_of(*process) == Some(group)) {
        let _ = writeln!(text, "process {process}: {}", command_line(process));
        let tasks = format!("/proc/{process}/task");
        for thread in numbers(Path::new(&tasks)) {
            let say = |name: &str| read(&format!("{tasks}/{thread}/{name}"));
            let _ = writeln!(
                text,
                "  thread {thread}: {} in {}, system call {}",
                state(&say("stat")),
                say("wchan"),
                say("syscall")
            );
        }
        text += &stacks(process);
    }
    let mut ss = Command::new(env!("CARGO"));
    ss.args(["run", "--quiet", "--bin", "sockshim", "--", "ss", "--json"]);
    text + &answer(ss.current_dir(env!("CARGO_MANIFEST_DIR")).env("SOCKSHIM_DIR", folder))
}

fn numbers(folder: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// What follows the name in proc_pid_stat(5): state, parent, group ...
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ')
}

fn state(stat: &str) -> &str {
    fields(stat).next().unwrap_or_default()
}

fn group_of(process: u32) -> Option<u32> {
    fields(&read(&format!("/proc/{process}/stat"))).nth(2)?.parse().ok()
}

fn command_line(process: u32) -> String {
    read(&format!("/proc/{process}/cmdline")).replace('\0', " ")
}

/// Where the threads are, if there is a debugger that can tell.
fn stacks(process: u32) -> String {
    let mut command = Command::new("timeout");
    command.args(["20", "gdb", "-batch", "-ex", "thread apply all backtrace 16", "-p", &process.to_string()]);
    let told = answer(&mut command);
    told.lines()
        .filter(|line| line.starts_with('#') || line.starts_with("Thread"))
        .fold(String::new(), |text, line| text + "    " + line + "\n")
}

fn answer(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
