//! Where and how the figures were taken.

use crate::common::probe::FAR;
use crate::common::results::Results;
use std::fmt::Write as _;
use std::fs;

pub(crate) fn describe(results: &Results) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu_facts = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_facts
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let virtual_machine = if cpu_facts.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let quick = results.rows.iter().any(|row| row.quick);

    let mut text = String::new();
    let _ = writeln!(text, "Command: `{}make bench`.", if quick { "BENCH_QUICK=1 " } else { "" });
    let _ = writeln!(text, "Machine: {model}, {cores} cores{virtual_machine}, Linux {}.", kernel.trim());
    let settings: Vec<_> = std::env::vars()
        .filter(|(name, _)| name.starts_with("SOCKSHIM_"))
        .map(|(name, value)| format!("`{name}={value}`"))
        .collect();
    if !settings.is_empty() {
        let _ = writeln!(text, "Settings: {}.", settings.join(", "));
    }
    let _ = writeln!(text, "{}", placement(&results.placements));
    text
}

fn placement(probes: &[f64]) -> String {
    let fold = |pick: fn(f64, f64) -> f64| probes.iter().copied().reduce(pick);
    let (Some(least), Some(most)) = (fold(f64::min), fold(f64::max)) else {
        return "Placement: one core.".to_owned();
    };
    let kind = match (least >= FAR, most >= FAR) {
        (false, false) => "near",
        (true, true) => "far",
        _ => "now near, now far: compare nothing across rows",
    };
    format!(
        "Placement: a bare round trip through a shared cache line between the two outer cores, looked at before \
         and after each bench, took {least:.0} to {most:.0} ns ({kind})."
    )
}
