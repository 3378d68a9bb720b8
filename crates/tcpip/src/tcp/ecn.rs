//! Explicit congestion notification (RFC 3168), as Linux has it: routers mark packets instead of dropping them.

use crate::wire::tcp::{Flags, Header};

/// Whether connections take part (net.ipv4.tcp_ecn).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ecn {
    /// ECN is not used.
    Off,
    /// If the other end asks for it.
    #[default]
    Answer,
    /// We ask for it.
    Ask,
}

/// The codepoints of the IP header (RFC 3168 section 5).
pub(crate) const CODEPOINT: u8 = 3;
pub(crate) const NOT_CAPABLE: u8 = 0;
/// ECT(0).
pub(crate) const CAPABLE: u8 = 2;
pub(crate) const EXPERIENCED: u8 = 3;

/// Acknowledgements that do not wait after a mark (Linux's `tcp_data_ecn_check`).
pub(crate) const QUICK: u8 = 2;

/// What a SYN says that asks for it, and its answer (RFC 3168 section 6.1.1).
pub(crate) const ASK: Flags = Flags::from_bits(Flags::ECE.bits() | Flags::CWR.bits());
pub(crate) const ACCEPT: Flags = Flags::ECE;

/// What a SYN with these two bits in its IP header asks for. RFC 3168 section 6.1.1 has no SYN that can be marked, so
/// something on the way writes over the bits and marks would mean nothing; Accurate ECN (RFC 9768) has them.
pub(crate) fn heard(syn: &Header, codepoint: u8) -> Header {
    let spoilt = codepoint != NOT_CAPABLE && !syn.flags.contains(Flags::NS);
    Header { flags: if spoilt { syn.flags.without(ASK) } else { syn.flags }, ..*syn }
}

/// One connection's part in it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EcnState {
    /// Both ends take part.
    pub(crate) on: bool,
    /// A mark has arrived, and each acknowledgement says so until the other end answers (section 6.1.3).
    echo: bool,
    /// Our window went down, and the next new data says so (section 6.1.2).
    reduced: bool,
    /// A packet of the other end was capable of being marked.
    seen: bool,
}

impl EcnState {
    /// TCP_INFO's TCPI_OPT_ECN and TCPI_OPT_ECN_SEEN.
    pub(crate) fn info(self) -> u8 {
        u8::from(self.on) << 3 | u8::from(self.seen) << 4
    }

    /// What a segment's flags say of marks that arrived here.
    pub(crate) fn echo_flags(self) -> Flags {
        if self.on && self.echo { Flags::ECE } else { Flags::default() }
    }

    /// For new data: it is capable of being marked, and tells once that the window went down.
    pub(crate) fn data_flags(&mut self) -> Flags {
        if core::mem::take(&mut self.reduced) && self.on { Flags::CWR } else { Flags::default() }
    }

    /// The next new data has something to tell, which is in the first segment of a super-segment only.
    pub(crate) fn has_news(self) -> bool {
        self.on && self.reduced
    }

    /// The window goes down, for whatever reason.
    pub(crate) fn on_reduction(&mut self) {
        self.reduced = self.on;
    }

    /// The reduction of the window is undone.
    pub(crate) fn on_undo(&mut self) {
        self.reduced = false;
    }

    /// A segment arrives. Returns whether it says that the other end has lowered its window, so that it need not hear any
    /// more of the mark.
    pub(crate) fn take_reduction(&mut self, flags: Flags) -> bool {
        let lowered = self.on && flags.contains(Flags::CWR);
        self.echo &= !lowered;
        lowered
    }

    /// Data arrives, marked or not. Returns whether the next [`QUICK`] acknowledgements must not wait (Linux's
    /// `tcp_data_ecn_check`).
    pub(crate) fn take_mark(&mut self, codepoint: u8) -> bool {
        // Of data that cannot be marked between data that can, something was lost: it is sent again.
        let again = codepoint == NOT_CAPABLE && self.seen;
        self.seen |= self.on && codepoint != NOT_CAPABLE;
        let news = codepoint == EXPERIENCED && !self.echo;
        self.echo |= self.on && codepoint == EXPERIENCED;
        self.on && (again || news)
    }
}
