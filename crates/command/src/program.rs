//! The program that is to be run: where it is, and what keeps sockshim out of it.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, FileHeader as _};
use object::{Object as _, ReadCache, ReadRef as _, elf};
use rustix::fs::{Access, AtFlags, CWD, accessat, getxattr};
use rustix::process::{getegid, geteuid, getuid};

/// Why a name cannot be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Missing,
    NotExecutable,
}

/// Finds the file that `execvp(name)` would run.
pub(crate) fn find(name: &OsStr) -> Result<PathBuf, Unusable> {
    if name.as_bytes().contains(&b'/') {
        return usable(Path::new(name)).map(|()| name.into());
    }
    let mut answer = Err(Unusable::Missing);
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    for folder in env::split_paths(&path) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let file = folder.join(name);
        match usable(&file) {
            Ok(()) => return Ok(file),
            Err(Unusable::NotExecutable) if !file.is_dir() => answer = Err(Unusable::NotExecutable),
            Err(_) => {}
        }
    }
    answer
}

/// What keeps the socket calls of a program from reaching sockshim.
#[derive(Debug)]
pub(crate) struct Obstacle {
    /// The reason, in words.
    pub(crate) text: String,
    /// Its loader would not start it with our library: musl's ends a program for which it cannot preload something.
    pub(crate) is_fatal: bool,
}

/// What keeps the socket calls of `program` from reaching sockshim, if there is anything.
///
/// A script is judged by its interpreter. A file that cannot be read is not judged.
pub(crate) fn obstacle(program: &Path) -> Option<Obstacle> {
    let mut file = program.to_owned();
    // The kernel follows interpreters to about this depth.
    for _ in 0..5 {
        match interpreter(&file) {
            Some(interpreter) => file = interpreter,
            None => break,
        }
    }
    let (what, is_fatal) = if gains_privileges(&file) {
        ("gains privileges when it starts, so the loader ignores LD_PRELOAD".to_owned(), false)
    } else {
        misfit(&file)?
    };
    Some(Obstacle { text: format!("{} {what}", file.display()), is_fatal })
}

/// What is wrong with an ELF file, if anything is, and whether that is fatal.
fn misfit(file: &Path) -> Option<(String, bool)> {
    // A program may be large, and very little of it is looked at.
    let data = ReadCache::new(File::open(file).ok()?);
    if (&data).read_bytes_at(0, 4) != Ok(&elf::ELFMAG) {
        return None;
    }
    let harmless = |what: &str| Some((what.to_owned(), false));
    let Some(linkage) = Linkage::of(&data) else {
        return harmless("was built for another kind of processor than libsockshim.so");
    };
    match linkage.loader {
        _ if linkage.go => harmless("is written in Go, which makes its system calls without libc"),
        None => harmless("is statically linked, so nothing can be loaded into it"),
        Some(loader) if loader.starts_with("ld-linux") => None,
        Some(loader) => Some((format!("uses another libc than glibc (its loader is {loader})"), true)),
    }
}

fn usable(file: &Path) -> Result<(), Unusable> {
    let metadata = fs::metadata(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Unusable::NotExecutable,
        _ => Unusable::Missing,
    })?;
    let executable = accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    if metadata.is_file() && executable { Ok(()) } else { Err(Unusable::NotExecutable) }
}

/// The program that runs `file`, if `file` is a script; behind `env`, the one that `env` starts.
fn interpreter(file: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(file).ok()?.take(SHEBANG_MAX).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let interpreter = Path::new(OsStr::from_bytes(words.next()?));
    if interpreter.file_name() == Some(OsStr::new("env")) {
        let program = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
        return find(OsStr::from_bytes(program)).ok();
    }
    Some(interpreter.to_owned())
}

/// Whether the loader will refuse `LD_PRELOAD`: set-user-ID, set-group-ID or file capabilities that change something.
fn gains_privileges(file: &Path) -> bool {
    let Ok(metadata) = fs::metadata(file) else { return false };
    let mode = metadata.mode();
    let set_user = mode & libc::S_ISUID != 0 && metadata.uid() != geteuid().as_raw();
    let set_group =
        mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 && metadata.gid() != getegid().as_raw();
    set_user || set_group || !getuid().is_root() && has_capabilities(file)
}

fn has_capabilities(file: &Path) -> bool {
    // linux/capability.h: `vfs_ns_cap_data`, the longest version, has 24 bytes.
    getxattr(file, "security.capability", &mut [0; 24]).is_ok()
}

/// How an ELF program gets at its libraries.
#[derive(Debug)]
struct Linkage {
    /// File name of the dynamic loader.
    loader: Option<String>,
    /// Go's runtime calls the kernel itself, even in programs that load libc.
    go: bool,
}

impl Linkage {
    /// `None` if it is not a program for this machine, or damaged.
    fn of<'data>(data: &'data ReadCache<File>) -> Option<Self> {
        let file = ElfFile64::<object::Endianness, &'data ReadCache<File>>::parse(data).ok()?;
        let endian = file.endian();
        let header = file.elf_header();
        if header.e_machine(endian) != elf::EM_X86_64 {
            return None;
        }
        let loader = header.program_headers(endian, data).ok()?.iter().find_map(|segment| {
            use object::read::elf::ProgramHeader as _;
            let name = segment.interpreter(endian, data).ok()??;
            Path::new(OsStr::from_bytes(name)).file_name().map(|name| name.to_string_lossy().into_owned())
        });
        Some(Self { loader, go: file.section_by_name(".go.buildinfo").is_some() })
    }
}

const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The kernel looks at no more of a script's first line.
const SHEBANG_MAX: u64 = 256;
