//! Writes what `sockshim bench --json` found to docs/benchmarks.md, with plots beside it. Not a question itself:
//! `make bench` runs it last.
//!
//! Arguments: files of answers. A later answer to a question replaces an earlier one.

mod report {
    pub(crate) mod machine;
    pub(crate) mod plot;
    pub(crate) mod table;
    pub(crate) mod targets;
}

use sockshim_bench::results::Row;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo adds an option of its own when it runs a bench.
    let files: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if files.is_empty() {
        eprintln!("usage: cargo bench --bench report -- ANSWERS.json...; `make bench` does it");
        return ExitCode::from(2);
    }
    let rows = files.iter().try_fold(Vec::new(), |rows, file| add(rows, Path::new(file)));
    match rows.and_then(|rows| write(&rows)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn add(mut rows: Vec<Row>, file: &Path) -> Result<Vec<Row>, String> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read(file).map_err(|error| about(&error))?;
    let more: Vec<Row> = serde_json::from_slice(&text).map_err(|error| about(&error))?;
    for row in more {
        match rows.iter_mut().find(|old| old.group == row.group && old.row == row.row) {
            Some(old) => *old = row,
            None => rows.push(row),
        }
    }
    Ok(rows)
}

fn write(rows: &[Row]) -> Result<(), String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let plots = report::plot::draw(rows, &docs.join("benchmarks"))?;
    let mut text = report::machine::describe(rows);
    let _ = writeln!(text, "\n## Targets\n\n{}", report::targets::table(rows));
    let _ = writeln!(text, "## Figures\n");
    for section in report::table::sections(rows) {
        let _ = writeln!(text, "### {}\n", section.title);
        for plot in plots.iter().filter(|plot| plot.group == section.rows[0].group) {
            let _ = writeln!(text, "![{}](benchmarks/{})\n", plot.title, plot.file);
        }
        text += &report::table::of(&section);
        text.push('\n');
    }
    println!("{text}");
    let file = docs.join("benchmarks.md");
    let page = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let lost = || format!("{} has lost its markers", file.display());
    let (before, rest) = page.split_once(BEGIN).ok_or_else(lost)?;
    let (_, after) = rest.split_once(END).ok_or_else(lost)?;
    std::fs::write(&file, format!("{before}{BEGIN}\n\n{text}{END}{after}"))
        .map_err(|error| format!("{}: {error}", file.display()))
}

const BEGIN: &str = "<!-- Written by `make bench` from here ... -->";
const END: &str = "<!-- ... to here. -->";
