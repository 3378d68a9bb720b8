//! The table on the terminal.

use sockshim_bench::questions::Group;
use sockshim_bench::results::{CONTROL, Entrant, Measure, Row};
use sockshim_bench::show;
use std::fmt::Write as _;

/// The line that names the columns.
pub(super) fn header() -> String {
    let [name, libc, sockshim, ring] = ["", "libc (user+system)", "sockshim", "raw ring"];
    format!(
        "  {name:36}  {libc:26} {sockshim:26} {ring:26}{:>25}{:>9}  cores\n",
        "x libc (quartiles)", "x ring"
    )
}

pub(super) fn title(group: &Group) -> String {
    format!("{}: {}", group.name, group.title)
}

/// A line for each backend other than libc and the raw ring.
pub(super) fn lines(row: &Row) -> String {
    let libc = &row.entrants[0];
    let mut text = String::new();
    for entrant in row.entrants[1..].iter().filter(|entrant| !entrant.is_ring()) {
        let name = if ["sockshim", CONTROL].contains(&entrant.name.as_str()) {
            row.row.clone()
        } else {
            format!("{}, {}", row.row, entrant.name)
        };
        let ring = row.ring().map_or_else(|| "-".to_owned(), |ring| cell(row, ring));
        let to_ring = entrant.to_ring.map_or_else(|| "-".to_owned(), |ratio| show::number(ratio.median));
        let _ = writeln!(
            text,
            "  {name:36}  {:26} {:26} {ring:26}{:>25}{to_ring:>9}  {}{}",
            cell(row, libc),
            cell(row, entrant),
            show::verdict(row.measure, entrant),
            row.placement(),
            entrant.remark()
        );
    }
    text
}

/// A figure, and the CPU time that it took.
fn cell(row: &Row, entrant: &Entrant) -> String {
    let figure = show::figure(row.measure, entrant.figure.median);
    match row.measure {
        Measure::Memory => figure,
        _ => format!("{figure} ({})", show::cpu(entrant)),
    }
}
