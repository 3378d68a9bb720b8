//! SYN cookies (RFC 4987 section 3.6): a handshake that is remembered in the numbers which the other end sends back.
//!
//! The initial sequence number holds a count of minutes and a choice of segment size under two keyed hashes, as D. J.
//! Bernstein designed it and Linux does it; the low bits of the timestamp hold window scale and SACK.

use core::net::SocketAddr;
use core::time::Duration;

use super::secrets::Secrets;
use crate::seq::SeqNumber;
use crate::time::Instant;

/// An initial sequence number that is a cookie, and what goes into the timestamp beside it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SynCookie {
    pub(crate) iss: SeqNumber,
    options: u32,
}

/// What a cookie remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) mss: u16,
    pub(crate) shift: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) ecn: bool,
}

/// Segment sizes that a cookie can tell: Linux's choice of common ones.
const SIZES_V4: [u16; 4] = [536, 1300, 1440, 1460];
const SIZES_V6: [u16; 4] = [1280 - 60, 1480 - 60, 1500 - 60, 9000 - 60];

/// How long a count lasts, and how many old ones are taken: Linux's minute and two.
const PERIOD: u64 = 60;
const MAX_AGE: u32 = 2;
/// How long after the last cookie acknowledgements may be of one.
pub(crate) const VALID: Duration = Duration::from_secs(PERIOD * (MAX_AGE as u64 + 1));

/// Low bits of the timestamp that hold options: four of window scale (15 for none), one of SACK, one of ECN.
const OPTION_BITS: u32 = 6;
const NO_SHIFT: u32 = 0xf;

impl SynCookie {
    pub(crate) fn new(
        secrets: &Secrets,
        now: Instant,
        (local, remote): (SocketAddr, SocketAddr),
        irs: SeqNumber,
        remembered: Remembered,
    ) -> Self {
        let sizes = sizes(remote);
        let choice = sizes.iter().rposition(|&size| size <= remembered.mss).unwrap_or(0) as u32;
        let count = count(now);
        let first = secrets.cookie(local, remote, 0);
        let second = secrets.cookie(local, remote, handshake(irs, count));
        let number = first
            .wrapping_add(irs.get())
            .wrapping_add(count << 24)
            .wrapping_add(second.wrapping_add(choice) & 0x00ff_ffff);
        let options = remembered.shift.map_or(NO_SHIFT, |shift| u32::from(shift.min(14)))
            | u32::from(remembered.sack) << 4
            | u32::from(remembered.ecn) << 5;
        Self { iss: SeqNumber::new(number), options }
    }

    /// A timestamp with the options in it, not later than `value`.
    pub(crate) fn stamp(&self, value: u32) -> u32 {
        let mask = (1 << OPTION_BITS) - 1;
        let stamp = value & !mask | self.options;
        if stamp > value { stamp.wrapping_sub(1 << OPTION_BITS) } else { stamp }
    }

    /// What an acknowledgement of `iss + 1` remembers, if it is of a cookie. `echo` is the timestamp that came back.
    pub(crate) fn check(
        secrets: &Secrets,
        now: Instant,
        (local, remote): (SocketAddr, SocketAddr),
        irs: SeqNumber,
        iss: SeqNumber,
        echo: Option<u32>,
    ) -> Option<Remembered> {
        let rest = iss.get().wrapping_sub(secrets.cookie(local, remote, 0)).wrapping_sub(irs.get());
        let now = count(now);
        let age = now.wrapping_sub(rest >> 24) & 0xff;
        if age > MAX_AGE {
            return None;
        }
        let then = now.wrapping_sub(age);
        let second = secrets.cookie(local, remote, handshake(irs, then));
        let choice = rest.wrapping_sub(second) & 0x00ff_ffff;
        let mss = *sizes(remote).get(choice as usize)?;
        let options = echo.map_or(NO_SHIFT, |echo| echo & ((1 << OPTION_BITS) - 1));
        let shift = options & 0xf;
        if shift > 14 && shift != NO_SHIFT {
            return None;
        }
        let shift = (shift != NO_SHIFT).then_some(shift as u8);
        Some(Remembered { mss, shift, sack: options & 0x10 != 0, ecn: options & 0x20 != 0 })
    }
}

/// What the second hash is about. With the peer's number in it, unlike Linux, whose cookie also fits the segments that begin up to
/// three bytes later: such a one, late or first of its kind to arrive, would open a stream without its first bytes.
fn handshake(irs: SeqNumber, count: u32) -> u64 {
    u64::from(irs.get()) << 32 | 1 << 31 | u64::from(count & 0x7fff_ffff)
}

fn count(now: Instant) -> u32 {
    (now.as_nanos() / (PERIOD * 1_000_000_000)) as u32
}

fn sizes(remote: SocketAddr) -> &'static [u16; 4] {
    if remote.is_ipv4() { &SIZES_V4 } else { &SIZES_V6 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends() -> (SocketAddr, SocketAddr) {
        ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:5000".parse().unwrap())
    }

    #[test]
    fn a_cookie_does_not_fit_a_segment_that_begins_a_little_later() {
        let secrets = Secrets::new([1, 2, 3, 4]);
        let (irs, now) = (SeqNumber::new(77), Instant::ZERO);
        let remembered = Remembered { mss: 1460, shift: None, sack: true, ecn: false };
        let cookie = SynCookie::new(&secrets, now, ends(), irs, remembered);
        let check = |irs| SynCookie::check(&secrets, now, ends(), irs, cookie.iss, None);
        assert!(check(irs).is_some());
        for later in 78..200 {
            assert_eq!(check(SeqNumber::new(later)), None);
        }
    }

    proptest! {
        #[test]
        fn a_cookie_remembers_the_handshake(
            keys: [u64; 4], irs: u32, clock: u32, at in 0u64..1 << 40, shift in proptest::option::of(0u8..15), sack: bool, ecn: bool,
            mss in 536u16..9000, wait in 0u64..60,
        ) {
            let secrets = Secrets::new(keys);
            let (irs, now) = (SeqNumber::new(irs), Instant::from_millis(at));
            let cookie = SynCookie::new(&secrets, now, ends(), irs, Remembered { mss, shift, sack, ecn });
            let echo = cookie.stamp(clock);
            prop_assert!(clock.wrapping_sub(echo) < 128, "close behind the clock");
            let later = now + Duration::from_secs(wait);
            let remembered = SynCookie::check(&secrets, later, ends(), irs, cookie.iss, Some(echo)).unwrap();
            prop_assert_eq!((remembered.shift, remembered.sack, remembered.ecn), (shift, sack, ecn));
            prop_assert!(remembered.mss <= mss);
        }
    }

    #[test]
    fn a_cookie_is_good_for_its_addresses_and_for_minutes_only() {
        let secrets = Secrets::new([1, 2, 3, 4]);
        let (irs, now) = (SeqNumber::new(77), Instant::from_secs(1000));
        let remembered = Remembered { mss: 1460, shift: None, sack: false, ecn: false };
        let cookie = SynCookie::new(&secrets, now, ends(), irs, remembered);
        let check = |ends, irs, iss, now| SynCookie::check(&secrets, now, ends, irs, iss, None);
        assert_eq!(check(ends(), irs, cookie.iss, now), Some(remembered));
        assert_eq!(check(ends(), irs, cookie.iss, now + Duration::from_secs(300)), None);
        let other = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:5001".parse().unwrap());
        assert_eq!(check(other, irs, cookie.iss, now), None);
        // The choice of sizes is added to the hashes: a number close by is a cookie of another size, in Linux as well.
        assert_eq!(check(ends(), irs + 100, cookie.iss, now), None);
        assert_eq!(check(ends(), irs, cookie.iss + 4, now), None);
    }
}
