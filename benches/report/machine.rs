//! Where and how the figures were taken.

use sockshim_bench::probe::FAR;
use sockshim_bench::results::Row;
use std::fmt::Write as _;
use std::fs;

pub(crate) fn describe(rows: &[Row]) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu_facts = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_facts
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let virtual_machine = if cpu_facts.contains(" hypervisor") { ", a virtual machine" } else { "" };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let quick = rows.iter().any(|row| row.quick);

    let mut text = String::new();
    let _ = writeln!(text, "Command: `{}make bench`.", if quick { "BENCH_QUICK=1 " } else { "" });
    let _ = writeln!(text, "Machine: {model}, {cores} cores{virtual_machine}, Linux {}.", kernel.trim());
    let mut congestion: Vec<_> = rows.iter().map(|row| row.congestion.as_str()).collect();
    congestion.sort_unstable();
    congestion.dedup();
    let _ = writeln!(text, "Congestion control: {}.", congestion.join("; "));
    let settings: Vec<_> = std::env::vars_os()
        .map(|(name, value)| format!("`{}={}`", name.display(), value.display()))
        .filter(|setting| setting.starts_with("`SOCKSHIM_"))
        .collect();
    if !settings.is_empty() {
        let _ = writeln!(text, "Settings: {}.", settings.join(", "));
    }
    let _ = writeln!(text, "{}", placement(rows));
    text
}

fn placement(rows: &[Row]) -> String {
    let probes = || rows.iter().filter_map(|row| row.probes).flatten();
    let (Some(least), Some(most)) = (probes().reduce(f64::min), probes().reduce(f64::max)) else {
        return "Placement: one core.".to_owned();
    };
    let far = probes().filter(|&probe| probe >= FAR).count();
    format!(
        "Placement: a bare round trip through a shared cache line between the first and the last core, looked at \
         before and after each row, took {least:.0} to {most:.0} ns; {far} of {} were far ({FAR:.0} ns or more).",
        probes().count()
    )
}
