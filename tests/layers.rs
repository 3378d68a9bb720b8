//! The layers of the library: each may import from those before it, and never the other way. The modules of the TCP/IP
//! core, which do not import one another in a circle. And what the library is made of, and what nobody does under a lock.
//!
//! Rust lets modules of one crate import one another in a circle, so this reads the sources. Every path counts that begins
//! with `crate`, `super` or `self`: in a `use` with all its groups, inside a line, in a module of tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// From the bottom to the top.
const LAYERS: [&str; 7] = ["error", "sys", "state", "pipe", "readiness", "lifecycle", "abi"];
/// The same inside a layer, for its folders.
const FOLDERS: [(&str, &[&str]); 1] =
    [("pipe", &["connection", "copying", "lanes", "handoff", "ending", "meeting", "waiting", "transfer"])];
/// What stands above them, and may import from all: the crate's root, and what only it and tests use.
const ABOVE: [&str; 5] = ["lib", "connection", "fuzzing", "inspect", "limits"];

#[test]
fn every_file_imports_from_its_own_layer_or_those_before_it() {
    let mut complaints = String::new();
    let mut count = 0;
    for (file, text) in sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        count += 1;
        complaints += &backward(&file, &text);
    }
    assert!(complaints.is_empty(), "\n{complaints}");
    assert!(count > 50, "only {count} files were found");
}

#[test]
fn no_modules_of_the_tcpip_core_import_one_another_in_a_circle() {
    let files = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/crates/tcpip/src")));
    assert!(files.len() > 50, "only {} files were found", files.len());
    assert_eq!(circles(&files), "");
}

/// What is in libsockshim.so gets into every program that is started with it.
#[test]
fn the_shared_object_is_made_of_what_contributing_md_grants_the_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--package", "sockshim-preload", "--edges", "normal", "--prefix", "none"]);
    let output = tree.current_dir(root).output().expect("cargo");
    let text = String::from_utf8_lossy(&output.stdout);
    let page = fs::read_to_string(root.join("CONTRIBUTING.md")).expect("a page");
    let is_granted = |name: &&str| {
        ["sockshim-preload", "sockshim", "sockshim-ring"].contains(name)
            || page.contains(&format!("\n| {name} | library"))
    };
    let names = || text.lines().filter_map(|line| line.split(' ').next());
    assert!(names().any(|name| name == "sockshim"), "{output:?}");
    assert_eq!(names().find(|name| !is_granted(name)), None, "\n{text}");
}

#[test]
fn an_import_from_a_later_layer_is_found_however_it_is_written() {
    let planted = [
        ("pipe/handoff/pin.rs", "use crate::readiness::epoll;"),
        ("pipe/handoff/pin.rs", "use crate::{error::Errno, readiness::{epoll, poll::Look}};"),
        ("pipe/handoff/pin.rs", "use super::super::super::readiness::epoll;"),
        (
            "pipe/transfer/write/long.rs",
            "pub(crate) use super::super::super::super::lifecycle::closing as begin;",
        ),
        ("pipe.rs", "use super::abi::IOV_MAX;"),
        ("pipe.rs", "use super::{state::Socket, readiness};"),
        ("sys/raw.rs", "fn raw() -> usize { 'a'; crate::abi::IOV_MAX }"),
        ("sys/raw.rs", "const TEXT: &str = \"\\\"//\"; fn raw<'a>() { crate::state::socket_table::get() }"),
        ("state/descriptor_table.rs", "mod tests { use super::*; use super::super::super::pipe::Pipe; }"),
        (
            "state/descriptor_table.rs",
            "mod tests { mod more { fn f() { super::super::super::super::pipe::io::f() } } }",
        ),
        ("state.rs", "mod tests { /* { */ const A: char = '{'; use super::super::lifecycle::fork; }"),
        ("state/registrations/hot.rs", "use crate :: readiness\n::epoll;"),
        ("error.rs", "use self::super::sys::kernel;"),
        ("readiness/poll.rs", "macro_rules! look { () => { $crate::abi::look() } }"),
        ("readiness/poll.rs", "use crate::*;"),
        ("readiness/poll.rs", "use crate as root;"),
        ("readiness.rs", "use super::*;"),
        ("lifecycle/fork.rs", "use crate::Reason;"),
        ("lifecycle/fork.rs", "fn r#try() { r#\"\"\"#; r##\"\"#\"##; b'\\''; crate::inspect::all() }"),
        ("new/room.rs", "use crate::abi;"),
        ("pipe/new.rs", "use crate::state::Socket;"),
        ("pipe/lanes/grow.rs", "use crate::pipe::transfer::{read, write};"),
        ("pipe/lanes/grow.rs", "use super::super::handoff::pin;"),
        ("pipe/connection.rs", "use super::waiting;"),
    ];
    for (file, text) in planted {
        let complaints = backward(file, text);
        assert!(complaints.starts_with(&format!("src/{file}:1 ")), "{file}: {text}\n{complaints}");
    }
    let complaint = backward(
        "pipe/handoff/pin.rs",
        "\n\nuse crate::state::{Socket, lock};\nuse crate::readiness::epoll;\n",
    );
    assert_eq!(
        complaint,
        "src/pipe/handoff/pin.rs:4 imports crate::readiness::epoll: pipe may import from error, sys, state and itself only\n"
    );
}

#[test]
fn what_is_no_import_from_a_later_layer_is_left_alone() {
    let innocent = [
        (
            "pipe/handoff/pin.rs",
            "use crate::state::{Socket, socket_table::{self, Entry}}; use super::{file, give_back};",
        ),
        ("pipe/handoff/pin.rs", "// use crate::readiness::epoll;\n/// [`crate::abi`] /* */\nfn f() {}"),
        ("pipe/handoff/pin.rs", "/* /* use crate::abi; */ use crate::readiness::epoll; */"),
        (
            "pipe/handoff/pin.rs",
            "const A: &str = \"crate::readiness::epoll\"; const B: &str = r#\"\"crate::abi\"#;",
        ),
        (
            "pipe/handoff/pin.rs",
            "pub(crate) fn f<'a>(x: &'a str) -> char { '\"' } pub(super) fn g() { self.readiness() }",
        ),
        ("pipe/handoff/pin.rs", "pub(in crate::pipe) fn f() {}"),
        (
            "pipe/lanes/grow.rs",
            "use super::{super::copying::bulk, reader}; use crate::pipe::connection::Pipe;",
        ),
        ("pipe.rs", "mod tests { use super::readiness; use super::*; }"),
        ("readiness/epoll.rs", "use super::check; use self::hot::ready; use crate::pipe::readiness;"),
        ("abi.rs", "use super::lifecycle::start;"),
        ("connection.rs", "use crate::abi::control; use crate::Reason;"),
        ("lib.rs", "use crate::inspect;"),
    ];
    for (file, text) in innocent {
        assert_eq!(backward(file, text), "", "{file}: {text}");
    }
}

/// A function that is called with a lock held has its guard. What waits, or reads a file, such a function may do only after it
/// has let others in: inside `apart`.
#[test]
fn nobody_waits_who_has_a_lock() {
    let sources = sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")));
    let locked: Vec<_> = sources.iter().flat_map(|(file, text)| under_locks(file, text)).collect();
    let waits: Vec<_> = locked.iter().filter_map(|(name, waits)| waits.as_ref().map(|w| (name, w))).collect();
    assert!(waits.is_empty(), "{waits:?}");
    assert!(locked.len() > 40, "only {} functions were found", locked.len());
}

#[test]
fn a_wait_under_a_lock_is_found() {
    let guilty = [
        "fn f(held: &WriteHeld<'_>) { kernel::sleep_us(1) }",
        "fn f<T>(a: (u8, T), held: &'a ReadHeld<'a>) -> [u8; 2] { if x { held.apart(|| { x() }); real::open(a) } }",
        "impl A { fn f(set: &SetHeld<'_>) { futex::wait(&set.word, 0, 1) } }",
    ];
    let innocent = [
        "fn f(held: WriteHeld<'_>) { drop(held); kernel::sleep_us(1) }",
        "fn f(held: &ReadHeld<'_>) { held.apart(|| { f(kernel::sleep_us(1)) }) } fn g() { kernel::open() }",
        "fn f(held: &SetHeld<'_>) { /* kernel::sleep_us */ sleep_us; futex::wake(1) }",
    ];
    for text in guilty {
        assert!(under_locks("", text).iter().any(|(_, waits)| waits.is_some()), "{text}");
    }
    for text in innocent {
        assert!(under_locks("", text).iter().all(|(_, waits)| waits.is_none()), "{text}");
    }
}

/// Functions that may not return for a while.
const WAITS: [&str; 9] =
    ["sleep_us", "open", "open_quickly", "wait", "pause", "sleep", "read_file", "nanosleep", "ppoll"];

/// The functions of a file that are called with a lock held, each with what it waits in.
fn under_locks(file: &str, text: &str) -> Vec<(String, Option<String>)> {
    let tokens = tokens(text);
    let word = |place: usize| tokens.get(place).map_or("", |(_, token)| token.as_str());
    // The place behind what is opened at this one.
    let behind = |start: usize| {
        let mut depth = 0;
        (start..tokens.len())
            .find(|place| {
                depth += i32::from(matches!(word(*place), "(" | "{"));
                depth -= i32::from(matches!(word(*place), ")" | "}"));
                depth == 0
            })
            .map_or(tokens.len(), |place| place + 1)
    };
    let mut found = Vec::new();
    for start in (0..tokens.len()).filter(|place| word(*place) == "fn") {
        let Some(parameters) = (start..start + 40).find(|place| word(*place) == "(") else { continue };
        let end = behind(parameters);
        let is_guard = |place: usize| matches!(word(place), "WriteHeld" | "ReadHeld" | "SetHeld" | "Guard");
        // By reference, perhaps with a lifetime, of which the tokens have the name.
        let is_held = (parameters..end)
            .any(|place| is_guard(place) && (word(place - 1) == "&" || word(place - 2) == "&"));
        // A type in front of it may be an array's.
        let is_body = |place: &usize| matches!(word(*place), "{" | ";") && word(place + 2) != "]";
        let Some(body) = (end..tokens.len()).find(is_body) else { continue };
        if !is_held || word(body) == ";" {
            continue;
        }
        let (mut place, last, mut waits) = (body, behind(body), None);
        while place < last {
            let is_call = word(place + 1) == "(";
            if is_call && word(place) == "apart" {
                place = behind(place + 1);
                continue;
            }
            if is_call && WAITS.contains(&word(place)) && word(place - 1) == "::" {
                let call = format!("{}::{}", word(place - 2), word(place));
                // Bounded spins, which give way.
                if call != "room::wait" {
                    waits = Some(call);
                }
            }
            place += 1;
        }
        found.push((format!("{file}: {}", word(start + 1)), waits));
    }
    found
}

#[test]
fn a_circle_is_found_in_any_folder() {
    let file = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    let files = [
        ("stack.rs", "use crate::{net::Network, tcp::input}; mod calls;"),
        ("stack/calls.rs", "use super::Stack; use crate::tcp::State;"),
        ("net.rs", "use crate::time::Instant;"),
        ("time.rs", ""),
        ("tcp/input.rs", "use super::state::State;"),
        ("tcp/state.rs", "use crate::time::Instant;"),
    ];
    assert_eq!(circles(&files.map(file)), "", "a parent and its children are one");
    let planted = [
        (("time.rs", "use crate::stack::Stack;"), "stack -> net"),
        (("tcp/state.rs", "fn f() { crate::stack::calls::f() }"), "tcp -> stack"),
        (("tcp/state/sub.rs", "use super::super::input::Segment;"), "tcp/state -> tcp/input"),
    ];
    for (more, expected) in planted {
        let files: Vec<_> = files.into_iter().chain([more]).map(file).collect();
        let complaints = circles(&files);
        assert!(complaints.contains(expected), "{more:?}\n{complaints}");
        assert!(!complaints.contains("-> tcp/state\n") || expected.contains("tcp/state"), "{complaints}");
    }
}

/// The imports of which circles are made, one line for each pair of modules that lie in the same folder: what a module
/// below one of them imports, that one does. Tests may import what they need.
fn circles(files: &[(String, String)]) -> String {
    let mut edges = BTreeMap::new();
    for (file, text) in files {
        let own: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
        let (code, _tests) = text.split_once("\n#[cfg(test)]\nmod tests {").unwrap_or((text, ""));
        if own.contains(&"tests") {
            continue;
        }
        for (line, target) in imports(&own, code) {
            let common = own.iter().zip(&target).take_while(|(own, target)| own == target).count();
            if let (Some(_), Some(_)) = (own.get(common), target.get(common)) {
                let pair = (own[..=common].join("/"), target[..=common].join("/"));
                edges.entry(pair).or_insert_with(|| format!("src/{file}:{line}"));
            }
        }
    }
    // What imports nothing that is left, or is not imported, is in no circle.
    loop {
        let count = edges.len();
        let importing: BTreeSet<String> = edges.keys().map(|(from, _)| from.clone()).collect();
        let imported: BTreeSet<String> = edges.keys().map(|(_, to)| to.clone()).collect();
        edges.retain(|(from, to), _| importing.contains(to) && imported.contains(from));
        if edges.len() == count {
            break;
        }
    }
    edges.iter().fold(String::new(), |text, ((from, to), place)| text + &format!("{place}: {from} -> {to}\n"))
}

/// What is wrong with the imports of a file, one line for each. `file` is its path below `src`.
fn backward(file: &str, text: &str) -> String {
    let modules: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    let own = modules[0];
    if ABOVE.contains(&own) {
        return String::new();
    }
    let Some(rank) = LAYERS.iter().position(|layer| *layer == own) else {
        return format!("src/{file}:1 belongs to no layer: tests/layers.rs must say where {own} stands\n");
    };
    let folders = FOLDERS.iter().find(|(layer, _)| *layer == own).map_or(&[][..], |(_, folders)| folders);
    let folder = modules.get(1).copied();
    let folder_rank = folders.iter().position(|other| Some(*other) == folder);
    if !folders.is_empty() && folder.is_some() && folder_rank.is_none() {
        return format!("src/{file}:1 is in no folder that tests/layers.rs knows\n");
    }
    let mut complaints = String::new();
    for (line, path) in imports(&modules, text) {
        let target = path.first().map_or("", String::as_str);
        let (place, before) = if !LAYERS[..=rank].contains(&target) {
            (own, &LAYERS[..rank])
        } else if let (Some(rank), Some(folder), true, Some(target)) =
            (folder_rank, folder, target == own, path.get(1))
            && !folders[..=rank].contains(&target.as_str())
        {
            (folder, &folders[..rank])
        } else {
            continue;
        };
        let path = path.iter().fold("crate".to_owned(), |path, name| path + "::" + name);
        let allowed = before.join(", ");
        let allowed = if allowed.is_empty() { "itself".to_owned() } else { allowed + " and itself" };
        let _ =
            writeln!(complaints, "src/{file}:{line} imports {path}: {place} may import from {allowed} only");
    }
    complaints
}

/// Line and full path, without `crate`, of everything that a file of the module at `modules` names in the crate.
fn imports(modules: &[&str], text: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(text);
    let word = |place: usize| tokens.get(place).map_or("", |(_, token)| token.as_str());
    let mut found = Vec::new();
    // The modules that are open within the file, each with the depth of braces at which it began.
    let mut inner: Vec<(usize, &str)> = Vec::new();
    let (mut depth, mut place) = (0, 0);
    while place < tokens.len() {
        match word(place) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inner.pop_if(|(began, _)| *began == depth);
            }
            "mod" if word(place + 2) == "{" => inner.push((depth, word(place + 1))),
            // As in `pub(crate)`.
            "crate" | "super" | "self" if word(place + 1) == ")" => {}
            start @ ("crate" | "super" | "self") => {
                // A value, or `use super::{self}`, whose path is already known.
                let is_path = word(place + 1) == "::" || start == "crate" && word(place - 1) == "use";
                if is_path {
                    let here = || modules.iter().copied().chain(inner.iter().map(|(_, name)| *name));
                    let before: Vec<String> =
                        if start == "crate" { Vec::new() } else { here().map(str::to_owned).collect() };
                    place = tree(&tokens, place, before, &mut found);
                    continue;
                }
            }
            _ => {}
        }
        place += 1;
    }
    found
}

/// Follows a path, and the groups at its end, from the token at `place`, inside the module at `path`. The place behind it.
fn tree(
    tokens: &[(usize, String)],
    mut place: usize,
    mut path: Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let word = |place: usize| tokens.get(place).map_or("", |(_, token)| token.as_str());
    let line = tokens[place].0;
    loop {
        match word(place) {
            "{" => {
                place += 1;
                while !matches!(word(place), "}" | "") {
                    place = tree(tokens, place, path.clone(), found);
                    while !matches!(word(place), "," | "}" | "") {
                        // `as` and a name.
                        place += 1;
                    }
                    place += usize::from(word(place) == ",");
                }
                return place + 1;
            }
            "crate" => path.clear(),
            "super" => _ = path.pop(),
            "self" | "*" => {}
            name => path.push(name.to_owned()),
        }
        place += 1;
        if word(place) != "::" {
            found.push((line, path));
            return place;
        }
        place += 1;
        if word(place) == "<" {
            // Types that a function is called with.
            found.push((line, path));
            return place;
        }
    }
}

/// The names and signs of a source text, each with its line; without comments, strings and characters.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let name = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest, 1)
        } else if matches!(&rest[..name], "r" | "br" | "cr") && raw_string(&rest[name..]).is_some() {
            name + raw_string(&rest[name..]).unwrap_or(0)
        } else if matches!(&rest[..name], "b" | "c") && rest[name..].starts_with('"') {
            string(rest, name + 1)
        } else if first == '\'' {
            character(rest)
        } else if name > 0 {
            tokens.push((line, rest[..name].to_owned()));
            name
        } else if rest.starts_with("::") {
            tokens.push((line, "::".to_owned()));
            2
        } else {
            if !first.is_whitespace() {
                tokens.push((line, first.to_string()));
            }
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// Length of a comment, which may have others inside.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut place) = (0, 0);
    while place < text.len() {
        let here = &text.as_bytes()[place..];
        if here.starts_with(b"/*") {
            depth += 1;
            place += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            place += 2;
        } else {
            place += 1;
        }
        if depth == 0 {
            break;
        }
    }
    place
}

/// Length of a string whose first character is at `start`.
fn string(text: &str, start: usize) -> usize {
    let mut escaped = false;
    for (place, letter) in text[start..].char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return start + place + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of what follows the `r` of a raw string.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.find(|c| c != '#')?;
    let inside = text[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &text[..hashes]);
    Some(hashes + 1 + inside.find(&end).map_or(inside.len(), |place| place + end.len()))
}

/// Length of a character, or of the sign before a lifetime.
fn character(text: &str) -> usize {
    let inside = &text[1..];
    if let Some(escaped) = inside.strip_prefix('\\') {
        // What is escaped may be a quote.
        return 3 + escaped[1..].find('\'').map_or(0, |place| place + 1);
    }
    match inside.chars().next() {
        Some(letter) if inside[letter.len_utf8()..].starts_with('\'') => letter.len_utf8() + 2,
        _ => 1,
    }
}

/// The Rust files below a folder: path from there, and text.
fn sources(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let name = entry.strip_prefix(root).expect("below the root").to_str().expect("a plain name");
                found.push((name.to_owned(), fs::read_to_string(&entry).expect("a source file")));
            }
        }
    }
    found.sort();
    found
}
