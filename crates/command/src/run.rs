//! `sockshim run`: sets the environment and becomes the program.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::args::{PathChoice, Run};
use crate::program::{self, Unusable};
use crate::{Failure, signals};

const CANNOT_PREPARE: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Replaces this process by the program; returns only if that fails.
pub(crate) fn run(args: &Run) -> Result<ExitCode, Failure> {
    let (name, arguments) = args
        .program
        .split_first()
        .ok_or_else(|| Failure::new(2, "no program given; try `sockshim run -- PROGRAM`"))?;
    let program = program::find(name).map_err(|unusable| match unusable {
        Unusable::Missing => Failure::new(NOT_FOUND, format!("{}: there is no such program", name.display())),
        Unusable::NotExecutable => Failure::new(
            CANNOT_EXECUTE,
            format!(
                "{}: this file cannot be executed; is it a program, with permission `x`?",
                name.display()
            ),
        ),
    })?;
    let obstacle = program::obstacle(&program);
    let mut environment = environment(args)?;
    if obstacle.as_ref().is_some_and(|obstacle| obstacle.is_fatal) {
        environment.clear();
    }

    if args.verbose {
        for (name, value) in &environment {
            eprintln!("sockshim: {name}={}", value.display());
        }
    }
    if let Some(obstacle) = obstacle {
        eprintln!("sockshim: warning: {}; its connections stay with the kernel", obstacle.text);
    }

    let mut command = Command::new(&program);
    command.arg0(name).args(arguments).envs(environment);
    signals::keep(&mut command);
    let error = command.exec();
    Err(Failure::new(CANNOT_EXECUTE, format!("{}: {error}", program.display())))
}

/// The variables to set, in the order in which they are shown.
fn environment(args: &Run) -> Result<Vec<(&'static str, OsString)>, Failure> {
    let library = library(args.library.as_deref())?;
    let mut environment = vec![("LD_PRELOAD", preload(&library, env::var_os("LD_PRELOAD"))?)];
    if let Some(path) = args.path {
        environment.push(("SOCKSHIM_PATH", path.as_str().into()));
        if path == PathChoice::Pipe {
            environment.push(("SOCKSHIM_UPGRADE_AFTER", "0".into()));
        }
    }
    if let Some(profile) = args.profile {
        environment.push(("SOCKSHIM_PROFILE", profile.as_str().into()));
    }
    Ok(environment)
}

/// `LD_PRELOAD` with `library` in front of what is there already. Another copy of the library, of an older install
/// perhaps, gives way to it.
fn preload(library: &Path, existing: Option<OsString>) -> Result<OsString, Failure> {
    if library.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        return Err(Failure::new(
            CANNOT_PREPARE,
            format!(
                "{}: LD_PRELOAD cannot hold a path with a space or a colon; install the library elsewhere",
                library.display()
            ),
        ));
    }
    let existing = existing.unwrap_or_default();
    // ld.so(8): "the items of the list can be separated by spaces or colons".
    let entries =
        existing.as_bytes().split(|byte| matches!(byte, b' ' | b':')).filter(|entry| !entry.is_empty());
    let mut kept: Vec<&Path> = entries
        .map(|entry| Path::new(OsStr::from_bytes(entry)))
        .filter(|entry| *entry == library || !is_sockshim(entry))
        .collect();
    if !kept.contains(&library) {
        kept.insert(0, library);
    }
    Ok(kept.iter().map(|entry| entry.as_os_str()).collect::<Vec<_>>().join(OsStr::new(":")))
}

/// Whether a file is called as the library is, with or without a version.
fn is_sockshim(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.as_bytes().starts_with(b"libsockshim.so"))
}

/// The shared object to preload: the one that was asked for, or the one that belongs to this command.
pub(crate) fn library(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    match wanted {
        Some(file) if file.is_file() => Ok(std::path::absolute(file)?),
        Some(file) => Err(Failure::new(CANNOT_PREPARE, format!("{}: there is no such file", file.display()))),
        None => find_library(),
    }
}

/// The shared object that belongs to this command: as built by Cargo, in the same folder, or installed.
fn find_library() -> Result<PathBuf, Failure> {
    let command = env::current_exe()?;
    let folder = command.parent().unwrap_or(Path::new("/"));
    LIBRARY_PLACES.iter().map(|place| folder.join(place)).find(|file| file.is_file()).map_or_else(
        || {
            Err(Failure::new(
                CANNOT_PREPARE,
                format!(
                    "libsockshim.so was found neither beside {} nor in ../lib; build it with `cargo build \
                     --release`, or say where it is with --library",
                    command.display()
                ),
            ))
        },
        |file| Ok(file.canonicalize()?),
    )
}

/// Relative to the folder of the command. Cargo keeps the newest build in `deps`, so that comes first.
const LIBRARY_PLACES: [&str; 4] =
    ["deps/libsockshim.so", "libsockshim.so", "../lib/libsockshim.so.0", "../lib/libsockshim.so"];

#[cfg(test)]
mod tests {
    use super::*;

    fn preload_of(library: &str, existing: Option<&str>) -> Result<OsString, Failure> {
        preload(Path::new(library), existing.map(|value| OsStr::new(value).to_owned()))
    }

    #[test]
    fn the_library_goes_in_front_of_what_was_preloaded() {
        assert_eq!(preload_of("/l/s.so", None).unwrap(), "/l/s.so");
        assert_eq!(preload_of("/l/s.so", Some("")).unwrap(), "/l/s.so");
        assert_eq!(preload_of("/l/s.so", Some("/a.so:/b.so")).unwrap(), "/l/s.so:/a.so:/b.so");
    }

    #[test]
    fn the_library_is_preloaded_once() {
        assert_eq!(preload_of("/l/s.so", Some("/a.so:/l/s.so")).unwrap(), "/a.so:/l/s.so");
    }

    #[test]
    fn another_copy_of_the_library_gives_way() {
        for older in ["/old/libsockshim.so", "/old/libsockshim.so.0", "libsockshim.so"] {
            assert_eq!(preload_of("/l/libsockshim.so", Some(older)).unwrap(), "/l/libsockshim.so");
            let between = format!("/a.so:{older} /b.so");
            assert_eq!(
                preload_of("/l/libsockshim.so", Some(&between)).unwrap(),
                "/l/libsockshim.so:/a.so:/b.so"
            );
        }
    }

    #[test]
    fn a_path_that_ld_preload_cannot_hold_is_refused() {
        assert_eq!(preload_of("/my lib/s.so", None).unwrap_err().code, CANNOT_PREPARE);
        assert_eq!(preload_of("/my:lib/s.so", None).unwrap_err().code, CANNOT_PREPARE);
    }
}
