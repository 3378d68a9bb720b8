//! Who this process is, beyond doubt. A number alone is used again, and says nothing outside of its pid namespace
//! (pid_namespaces(7)): every container has a process 1. So three things are compared, all of which stay over exec(2).

use crate::sys::folder::PathBuffer;
use crate::sys::{kernel, process};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A process's name for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessName {
    pub(crate) number: u32,
    /// Clock ticks from boot to its start (proc_pid_stat(5)); 0: not known.
    pub(crate) started: u64,
    /// Inode of its pid namespace; 0: not known.
    pub(crate) namespace: u64,
}

/// The name of a process as the socket table holds it.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) namespace: AtomicU64,
    started: AtomicU64,
    number: AtomicU32,
}

impl ProcessName {
    /// This process's. Where there is no /proc, its number alone is known.
    pub(crate) fn own() -> Self {
        Self {
            number: kernel::getpid(),
            started: process::start_time().unwrap_or(0),
            namespace: process::namespace().unwrap_or(0),
        }
    }

    /// Whether nobody else can have it.
    pub(crate) fn is_certain(&self) -> bool {
        self.started != 0 && self.namespace != 0
    }

    /// Adds the name of its table's file to the path of the folder. `instance`: how many tables of that process were in use
    /// when it was made.
    pub(crate) fn name_table(&self, version: u32, instance: u32, path: &mut PathBuffer) -> fmt::Result {
        let Self { number, started, namespace } = self;
        write!(path, "/table{version}-{namespace:x}-{number}-{started}")?;
        if instance > 0 { write!(path, ".{instance}") } else { Ok(()) }
    }
}

impl Stored {
    pub(crate) const fn new() -> Self {
        Self { namespace: AtomicU64::new(0), started: AtomicU64::new(0), number: AtomicU32::new(0) }
    }

    pub(crate) fn store(&self, name: &ProcessName) {
        self.number.store(name.number, Ordering::Relaxed);
        self.started.store(name.started, Ordering::Relaxed);
        self.namespace.store(name.namespace, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> ProcessName {
        ProcessName {
            number: self.number.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
            namespace: self.namespace.load(Ordering::Relaxed),
        }
    }
}
