//! Writes the tables of docs/benchmarks.md.

use sockshim_bench::questions::GROUPS;
use sockshim_bench::results::{Entrant, Measure, Row};
use sockshim_bench::show;
use std::fmt::Write as _;

/// More backends than this, and a table has a column for each.
const WIDE: usize = 6;

/// The rows of one group.
pub(crate) struct Section<'a> {
    pub(crate) title: String,
    pub(crate) rows: Vec<&'a Row>,
}

/// In the order of the catalogue.
pub(crate) fn sections(rows: &[Row]) -> Vec<Section<'_>> {
    let groups = GROUPS.iter().map(|group| {
        let title = format!("{}: {}", group.name, group.title);
        Section { title, rows: rows.iter().filter(|row| row.group == group.name).collect() }
    });
    groups.filter(|section| !section.rows.is_empty()).collect()
}

pub(crate) fn of(section: &Section<'_>) -> String {
    let (controls, rows): (Vec<_>, Vec<_>) =
        section.rows.iter().copied().partition(|row| row.control().is_some());
    let head = controls.iter().filter_map(|row| control(row)).collect::<String>();
    let Some(first) = rows.first() else { return head };
    head + &if first.entrants.len() > WIDE { matrix(&rows) } else { list(&rows) }
}

/// What libc against libc came to: how far the figures of the table can be believed.
fn control(row: &Row) -> Option<String> {
    let control = row.control()?;
    let (measured, is_sound) = match row.measure {
        // Of memory there is next to none to divide by.
        Measure::Memory => {
            (show::verdict(row.measure, control), control.over_libc.median.abs() <= SAME_MEMORY)
        }
        _ => (format!("{} times", show::ratio(control.to_libc)), is_sound(control.to_libc.median)),
    };
    let verdict = if is_sound {
        "Control"
    } else {
        "**The control is more than 5 % off, so nothing follows from this table.** It"
    };
    let place = row.row.trim_start_matches("control: ");
    Some(format!("{verdict}, libc against libc ({place}): {measured}.\n\n"))
}

/// Bytes of memory for each connection that are no difference: a page for sixteen of them.
const SAME_MEMORY: f64 = 256.0;

/// Whether a ratio of what is the same is near enough to 1.
fn is_sound(ratio: f64) -> bool {
    (ratio - 1.0).abs() <= 0.05
}

/// One line per row and backend.
fn list(rows: &[&Row]) -> String {
    let memory = rows[0].measure == Measure::Memory;
    let mut text = String::new();
    let last = match rows[0].measure {
        Measure::Call | Measure::Memory => "more than libc",
        _ => "times libc",
    };
    let _ = writeln!(
        text,
        "| | libc | CPU | sockshim | CPU | raw ring | CPU | {last} (quartiles) | worst run | times the ring | cores |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        let libc = &row.entrants[0];
        for entrant in row.entrants[1..].iter().filter(|entrant| !entrant.is_ring()) {
            let name = match entrant.name.as_str() {
                "sockshim" => row.row.clone(),
                other => format!("{}, {other}", row.row),
            };
            let (ring, ring_cpu) =
                row.ring().map_or(("-".to_owned(), "-".to_owned()), |ring| figures(row, ring));
            let (libc_figure, libc_cpu) = figures(row, libc);
            let (figure, cpu) = figures(row, entrant);
            let verdict = show::verdict(row.measure, entrant);
            let worst = show::worst(row.measure, entrant);
            let to_ring = entrant.to_ring.map_or_else(|| "-".to_owned(), |ratio| show::number(ratio.median));
            let _ = writeln!(
                text,
                "| {name} | {libc_figure} | {libc_cpu} | {figure} | {cpu} | {ring} | {ring_cpu} | **{verdict}** | \
                 {worst} | {to_ring} | {}{} |",
                row.placement(),
                entrant.remark()
            );
        }
    }
    if !memory {
        let _ = writeln!(text, "\nPer {}.", units(rows));
    }
    text
}

fn figures(row: &Row, entrant: &Entrant) -> (String, String) {
    let figure = show::figure(row.measure, entrant.figure.median);
    (figure, if row.measure == Measure::Memory { "-".to_owned() } else { show::cpu(entrant) })
}

/// One line per row, one column per backend.
fn matrix(rows: &[&Row]) -> String {
    let mut text = String::from("| round trips |");
    for entrant in &rows[0].entrants {
        let _ = write!(text, " {} |", entrant.name);
    }
    text += "\n|---|";
    text += &"---|".repeat(rows[0].entrants.len());
    text.push('\n');
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.row, show::time(row.entrants[0].figure.median));
        for entrant in &row.entrants[1..] {
            let percent = (1.0 / entrant.to_libc.median - 1.0) * 100.0;
            let _ = write!(text, " {} ({percent:+.0} %) |", show::time(entrant.figure.median));
        }
        text.push('\n');
    }
    text += "\nTime per connection; in brackets by how much it is longer than with libc in the same round.\n";
    text
}

fn units(rows: &[&Row]) -> String {
    let mut units: Vec<_> = rows.iter().map(|row| row.unit.as_str()).collect();
    units.sort_unstable();
    units.dedup();
    units.join(" or ")
}
