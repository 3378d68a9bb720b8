//! How figures are written, on the terminal and in documentation alike.

use crate::results::{Entrant, Measure, Summary};

/// A figure with its unit.
#[must_use]
pub fn figure(measure: Measure, value: f64) -> String {
    match measure {
        Measure::Time | Measure::Cpu | Measure::Call => time(value),
        Measure::Rate => rate(1e9 / value),
        Measure::Throughput(bytes) => format!("{:.2} GB/s", bytes as f64 / value),
        Measure::Memory if value < 10_240.0 => format!("{value:.0} B"),
        Measure::Memory => format!("{:.1} KB", value / 1024.0),
    }
}

/// Nanoseconds in the unit that fits.
#[must_use]
pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 9_995.0 => format!("{:.2} us", ns / 1e3),
        ns if ns < 999_500.0 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

fn rate(per_second: f64) -> String {
    match per_second {
        n if n < 9_995.0 => format!("{n:.0}/s"),
        n if n < 999_500.0 => format!("{:.1} k/s", n / 1e3),
        n => format!("{:.2} M/s", n / 1e6),
    }
}

/// User and system time of both ends, in the unit of their sum.
#[must_use]
pub fn cpu(entrant: &Entrant) -> String {
    let (divisor, unit) = match entrant.cpu_ns() {
        ns if ns < 999.5 => (1.0, "ns"),
        ns if ns < 999_500.0 => (1e3, "us"),
        _ => (1e6, "ms"),
    };
    let part = |ns: f64| match ns / divisor {
        value if value < 10.0 && divisor > 1.0 => format!("{value:.2}"),
        value => format!("{value:.0}"),
    };
    format!("{}+{} {unit}", part(entrant.user_ns), part(entrant.system_ns))
}

/// How an entrant compares with libc: how many times as good it is or, where that is what matters, how much more it
/// takes.
#[must_use]
pub fn verdict(measure: Measure, entrant: &Entrant) -> String {
    let more = entrant.over_libc;
    match measure {
        Measure::Call => {
            format!("{:+.1} ns ({:+.1} to {:+.1})", more.median, more.quarter, more.three_quarters)
        }
        Measure::Memory => format!("+{}", figure(measure, more.median)),
        _ => ratio(entrant.to_libc),
    }
}

/// The least favourable run of an entrant, compared with libc as in [`verdict`].
#[must_use]
pub fn worst(measure: Measure, entrant: &Entrant) -> String {
    match measure {
        _ if entrant.worst.is_nan() => "-".to_owned(),
        Measure::Call => format!("{:+.1} ns", entrant.worst),
        Measure::Memory => format!("+{}", figure(measure, entrant.worst)),
        _ => number(entrant.worst),
    }
}

/// Three or more digits.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = match value {
        value if value < 2.0 => 3,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// A ratio with its quartiles.
#[must_use]
pub fn ratio(ratio: Summary) -> String {
    let [low, middle, high] = [ratio.quarter, ratio.median, ratio.three_quarters].map(number);
    format!("{middle} ({low} to {high})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_unit_that_fits() {
        assert_eq!(figure(Measure::Time, 197.4), "197 ns");
        assert_eq!(figure(Measure::Cpu, 71_600.0), "71.6 us");
        assert_eq!(figure(Measure::Rate, 84.0), "11.90 M/s");
        assert_eq!(figure(Measure::Rate, 1e6), "1000/s");
        assert_eq!(figure(Measure::Throughput(65536), 8_100.0), "8.09 GB/s");
        assert_eq!(figure(Measure::Memory, 4096.0), "4096 B");
    }
}
