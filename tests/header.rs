//! include/sockshim.h is what the sources say, and C and C++ compilers take it as it is.
//!
//! `SOCKSHIM_BLESS=1 cargo test --test header` writes it anew.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_header_is_up_to_date() {
    let path = root().join("include/sockshim.h");
    let expected = generated();
    if std::env::var_os("SOCKSHIM_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    if let Some(line) = first_difference(&found, &expected) {
        panic!("{}:{line} is out of date; SOCKSHIM_BLESS=1 cargo test --test header", path.display());
    }
}

#[test]
fn the_header_compiles_as_c11() {
    compile("cc", "c", &["-std=c11"], PROGRAM);
}

#[test]
fn the_header_compiles_as_cpp() {
    compile("c++", "c++", &["-std=c++11"], PROGRAM);
}

#[test]
fn every_declaration_has_the_type_of_the_c_library() {
    // In C++, because glibc declares addresses as a union of all kinds in C, and exceptions are no part of types yet.
    let checks: String = include_str!("exports.txt")
        .lines()
        .filter(|name| !["sockshim_", "__", "io_uring_"].iter().any(|start| name.starts_with(start)))
        // What the C library does not declare.
        .filter(|name| *name != "bsd_signal")
        // Two names of one call.
        .map(|name| {
            let ours = match name {
                "_Exit" => "_exit",
                "ssignal" => "signal",
                name => name,
            };
            (name, ours)
        })
        .map(|(name, ours)| format!("decltype(&::{name}) the_{name} = &sockshim_{ours};\n"))
        .collect();
    // Programs use what is deprecated, too.
    let options = ["-std=c++11", "-Wno-deprecated-declarations"];
    compile("c++", "c++", &options, &format!("{LIBC}{checks}"));
}

#[test]
fn the_version_macros_are_the_package_version() {
    let header = generated();
    for (part, value) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("PATCH", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        assert!(header.contains(&format!("#define SOCKSHIM_VERSION_{part} {value}\n")));
    }
    let version = env!("CARGO_PKG_VERSION");
    assert!(header.contains(&format!("#define SOCKSHIM_VERSION \"{version}\"\n")));
    // SAFETY: the function returns a C string that is never freed.
    let linked = unsafe { std::ffi::CStr::from_ptr(sockshim::abi::control::sockshim_version()) };
    assert_eq!(linked.to_str(), Ok(version));
}

#[test]
fn every_exported_function_is_declared() {
    let header = generated();
    for name in include_str!("exports.txt").lines().filter(|name| name.starts_with("sockshim_")) {
        // liburing's functions are in its own header.
        let hidden = name.ends_with("_chk") || name.starts_with("sockshim_io_uring_");
        assert_eq!(header.contains(&format!("{name}(")), !hidden, "{name}");
    }
}

#[test]
fn every_function_is_documented() {
    let header = generated();
    for name in include_str!("exports.txt").lines().filter(|name| name.starts_with("sockshim_")) {
        let Some((before, _)) = header.split_once(&format!("{name}(")) else { continue };
        let (before, type_alone) = before.rsplit_once("*/").expect(name);
        assert!(!type_alone.contains([';', '}']), "{name} has no comment of its own");
        let (_, comment) = before.rsplit_once("/**").expect(name);
        assert!(!comment.contains("As the manual page"), "{name} does not say which page, and what differs");
    }
}

fn generated() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let functions = config.after_includes.take().unwrap();
    config.after_includes = Some(format!("{}{}", version_macros(), documented(&functions)));
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join(source));
    }
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

/// The declarations that are not cbindgen's, each below the documentation that the function has in the sources.
fn documented(declarations: &str) -> String {
    let sources = SOURCES.map(|source| std::fs::read_to_string(root().join(source)).unwrap());
    let mut header = String::new();
    for line in declarations.lines() {
        if let Some((start, _)) = line.split_once('(').filter(|_| line.ends_with(");")) {
            // `__attribute__((...))` comes before the name.
            let name = if start.starts_with("__attribute__") { "sockshim_vfork" } else { last_word(start) };
            header += &format!("\n{}", comment(&sources, name));
        }
        header += line;
        header.push('\n');
    }
    header
}

/// What the sources say of a function, as a comment in C.
fn comment(sources: &[String], name: &str) -> String {
    let definition = format!(" fn {name}(");
    let (before, _) = sources.iter().find_map(|source| source.split_once(&definition)).expect(name);
    let mut lines: Vec<&str> =
        before.lines().rev().skip(1).skip_while(|line| line.starts_with("#[")).collect();
    let length = lines.iter().take_while(|line| line.starts_with("///")).count();
    assert_ne!(length, 0, "{name} has no documentation");
    lines.truncate(length);
    let text: String = lines.iter().rev().map(|line| format!(" *{}\n", &line[3..])).collect();
    format!("/**\n{text} */\n")
}

fn last_word(text: &str) -> &str {
    text.rsplit([' ', '*']).next().unwrap_or(text)
}

/// What has functions or types for the header, in the order of their appearance.
const SOURCES: [&str; 16] = [
    "src/abi/socket.rs",
    "src/abi/recv.rs",
    "src/abi/send.rs",
    "src/abi/splice.rs",
    "src/abi/poll.rs",
    "src/abi/fd.rs",
    "src/abi/makers.rs",
    "src/abi/process.rs",
    "src/abi/exec.rs",
    "src/abi/user.rs",
    "src/abi/command.rs",
    "src/abi/stdio.rs",
    "src/abi/signal.rs",
    "src/abi/syscall.rs",
    "src/state/reason.rs",
    "src/abi/control.rs",
];

fn version_macros() -> String {
    format!(
        "\n#define SOCKSHIM_VERSION \"{}\"\n\
         #define SOCKSHIM_VERSION_MAJOR {}\n\
         #define SOCKSHIM_VERSION_MINOR {}\n\
         #define SOCKSHIM_VERSION_PATCH {}\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    )
}

/// The number of the first line that differs.
fn first_difference(found: &str, expected: &str) -> Option<usize> {
    if found == expected {
        return None;
    }
    let same = found.lines().zip(expected.lines()).take_while(|(found, expected)| found == expected).count();
    Some(same + 1)
}

/// Checks `program`, which includes the header.
fn compile(compiler: &str, language: &str, options: &[&str], program: &str) {
    if Command::new(compiler).arg("--version").output().is_err() {
        let required = std::env::var("SOCKSHIM_TEST_REQUIRE").is_ok_and(|value| value == "1");
        assert!(!required, "there is no {compiler}");
        eprintln!("SKIPPED: there is no {compiler}, the header was not compiled as {language}");
        return;
    }
    let folder =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("header-{compiler}-{}", program.len()));
    let source = folder.join("program");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("sockshim.h"), generated()).unwrap();
    std::fs::write(&source, program).unwrap();
    let output = Command::new(compiler)
        .args(["-x", language, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-D_GNU_SOURCE"])
        .args(options)
        .arg("-I")
        .arg(&folder)
        .arg(&source)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Includes the header, and those of the C library that declare what we take.
const LIBC: &str = "
#include <sockshim.h>
#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <utmp.h>
";

/// Includes the header first, and calls a function of each kind.
const PROGRAM: &str = r#"
#include <sockshim.h>
#include <sockshim.h>

int main(void) {
    struct sockshim_counters counters;
    struct sockaddr_storage address;
    struct mmsghdr message = {};
    socklen_t length = sizeof address;
    int fd = sockshim_socket(AF_INET, SOCK_STREAM, 0);
    sockshim_accept(fd, (struct sockaddr *)&address, &length);
    sockshim_sendmmsg(fd, &message, 1, 0);
    sockshim_dprintf(fd, "%s %d\n", sockshim_version(), SOCKSHIM_VERSION_MAJOR);
    sockshim_execl("/bin/true", "true", (char *)0);
    if (sockshim_counters(fd, &counters) == 0 && counters.bytes_sent > 0)
        return sockshim_path(fd) == SOCKSHIM_PATH_PIPE;
    return sockshim_reason(fd) == SOCKSHIM_REASON_NOT_TCP;
}
"#;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
