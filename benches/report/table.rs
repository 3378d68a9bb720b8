//! The tables.

use crate::common::results::{Entrant, Results, Row};
use std::fmt::Write as _;

/// More ways than this, and a table has a column for each.
const WIDE: usize = 6;

/// Groups whose connections are expected on a pipe.
const ON_PIPES: [&str; 3] = ["Round trips", "Messages one way", "64 B round trips, server in epoll_wait"];

/// All tables, in the order of [`sections`].
pub(crate) fn tables(results: &Results) -> String {
    let mut text = String::new();
    for (title, rows) in sections(results) {
        let _ = writeln!(text, "### {title}\n");
        text += &if rows[0].entrants.len() > WIDE { matrix(&rows) } else { list(&rows) };
        text.push('\n');
    }
    text
}

/// The groups with their rows; groups that are not named here come last.
pub(crate) fn sections(results: &Results) -> Vec<(&str, Vec<&Row>)> {
    const ORDER: [&str; 6] = [
        "Round trips",
        "Messages one way",
        "64 B round trips, server in epoll_wait",
        "Without a pipe",
        "Short connections",
        "Calls on other descriptors",
    ];
    let mut sections: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in &results.rows {
        match sections.iter_mut().find(|(title, _)| *title == row.group) {
            Some((_, rows)) => rows.push(row),
            None => sections.push((&row.group, vec![row])),
        }
    }
    sections.sort_by_key(|(title, _)| ORDER.iter().position(|known| known == title).unwrap_or(ORDER.len()));
    sections
}

/// One line per row and way.
fn list(rows: &[&Row]) -> String {
    let ways = rows.iter().any(|row| row.entrants.len() > 2);
    let mut text = String::new();
    let how = if ways { "| with " } else { "" };
    let _ = writeln!(
        text,
        "| {} {how}| libc | sockshim | libc/sockshim (quartiles) | CPU, libc | CPU, sockshim |",
        if rows[0].bytes.is_some() { "size" } else { "" }
    );
    let _ = writeln!(text, "|---|{}---|---|---|---|---|", if ways { "---|" } else { "" });
    for row in rows {
        let libc = &row.entrants[0];
        for other in &row.entrants[1..] {
            let how = if ways { format!("| {} ", other.name) } else { String::new() };
            let _ = writeln!(
                text,
                "| {} {how}| {} | {} | {} | {} | {} |",
                row.row,
                pace(row, libc),
                pace(row, other) + stray(row, other),
                ratio(other),
                time(libc.cpu_ns.median),
                time(other.cpu_ns.median)
            );
        }
    }
    let _ = writeln!(
        text,
        "\nTimes per {}; CPU is user and system time of all processes taking part.",
        units(rows)
    );
    text
}

/// One line per row, one column per way.
fn matrix(rows: &[&Row]) -> String {
    let mut text = String::from("| round trips |");
    for entrant in &rows[0].entrants {
        let _ = write!(text, " {} |", entrant.name);
    }
    text += "\n|---|";
    text += &"---|".repeat(rows[0].entrants.len());
    text.push('\n');
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.row, time(row.entrants[0].ns.median));
        for entrant in &row.entrants[1..] {
            let percent = (1.0 / entrant.speed.median - 1.0) * 100.0;
            let _ = write!(text, " {} ({percent:+.0} %) |", time(entrant.ns.median));
        }
        text.push('\n');
    }
    text += "\nTime per connection; in brackets by how much it is longer than with libc in the same round.\n";
    text
}

/// Says so when a row is not about what it is meant to be about.
fn stray(row: &Row, entrant: &Entrant) -> &'static str {
    if !entrant.on_pipe && ON_PIPES.contains(&row.group.as_str()) { " (not on a pipe)" } else { "" }
}

/// Time per operation, or a rate.
fn pace(row: &Row, entrant: &Entrant) -> String {
    let ns = entrant.ns.median;
    match row.bytes {
        Some(bytes) if bytes >= 16384 => format!("{:.2} GB/s", bytes as f64 / ns),
        Some(_) => format!("{:.2} M/s", 1000.0 / ns),
        None => time(ns),
    }
}

fn ratio(entrant: &Entrant) -> String {
    let digits = if entrant.speed.median < 1.5 { 3 } else { usize::from(entrant.speed.median < 20.0) };
    let [low, middle, high] = [entrant.speed.quarter, entrant.speed.median, entrant.speed.three_quarters]
        .map(|value| format!("{value:.digits$}"));
    format!("**{middle}** ({low} to {high})")
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 9_995.0 => format!("{:.2} us", ns / 1e3),
        ns if ns < 999_500.0 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

fn units(rows: &[&Row]) -> String {
    let mut units: Vec<_> = rows.iter().map(|row| row.unit.as_str()).collect();
    units.sort_unstable();
    units.dedup();
    units.join(" or ")
}
