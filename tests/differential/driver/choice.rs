//! Which process, socket or thread a step is about, and whether it may be made now.

use super::{Kind, Run, Slot, What};
use crate::program::Patience;

impl Run {
    pub(super) fn process(&self, selector: u8) -> Option<usize> {
        let alive: Vec<_> = (0..self.processes.len()).filter(|&each| self.processes[each].alive).collect();
        (!alive.is_empty()).then(|| alive[usize::from(selector) % alive.len()])
    }

    pub(super) fn socket(&self, selector: u8) -> Option<Slot> {
        let sockets: Vec<_> = self.slots.iter().filter(|slot| slot.what != What::Set).collect();
        (!sockets.is_empty()).then(|| *sockets[usize::from(selector) % sockets.len()])
    }

    pub(super) fn set_slot(&self, selector: u8) -> Option<Slot> {
        let sets: Vec<_> = self.slots.iter().filter(|slot| slot.what == What::Set).collect();
        (!sets.is_empty()).then(|| *sets[usize::from(selector) % sets.len()])
    }

    /// A socket of a connection in which neither direction is filled beyond what is compared.
    pub(super) fn calm_end(&self, selector: u8) -> Option<(Slot, usize, usize)> {
        let slot = self.socket(selector)?;
        let What::Socket(connection, side) = slot.what else { return None };
        self.is_calm(connection).then_some((slot, connection, side))
    }

    pub(super) fn calm_socket(&self, selector: u8) -> Option<Slot> {
        self.calm_end(selector).map(|(slot, ..)| slot)
    }

    pub(super) fn is_calm(&self, connection: usize) -> bool {
        !self.connections[connection].streams.iter().any(|stream| stream.wild)
    }

    pub(super) fn all_calm(&self) -> bool {
        (0..self.connections.len()).all(|connection| self.is_calm(connection))
    }

    /// Whether somebody sleeps in a read of what an end writes. Who of several gets what is nobody's promise.
    pub(super) fn is_awaited(&self, connection: usize, side: usize) -> bool {
        self.pending.iter().any(
            |each| matches!(each.kind, Kind::Read { connection: c, side: s, .. } if (c, s) == (connection, side)),
        )
    }

    /// Whether somebody sleeps in a read, or in a wait: who of two looks first is nobody's promise either.
    pub(super) fn is_read(&self) -> bool {
        self.pending.iter().any(|each| matches!(each.kind, Kind::Read { .. }))
    }

    pub(super) fn is_waited(&self) -> bool {
        self.pending.iter().any(|each| matches!(each.kind, Kind::Plain))
    }

    pub(super) fn is_busy(&self, process: usize, thread: usize) -> bool {
        self.pending.iter().any(|each| (each.process, each.thread) == (process, thread))
    }

    pub(super) fn is_used(&self, process: usize, fd: i32) -> bool {
        self.pending.iter().any(|each| each.process == process && each.fds.contains(&fd))
    }

    /// A thread that makes no call now, `wanted` if possible.
    pub(super) fn idle(&self, process: usize, wanted: usize) -> Option<usize> {
        let process_now = &self.processes[process];
        let count = if process_now.alive { process_now.threads.len() } else { 0 };
        (0..count).map(|offset| (wanted + offset) % count).find(|&thread| !self.is_busy(process, thread))
    }

    /// Nobody wakes the only thread there is.
    pub(super) fn allowed(&self, patience: Patience, process: usize) -> Patience {
        match patience {
            Patience::Endless if self.processes[process].threads.len() == 1 || self.is_read() => {
                Patience::Little
            }
            patience => patience,
        }
    }
}
