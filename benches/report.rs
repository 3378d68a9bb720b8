//! Writes what the benches found, as a table and a plot, to docs/benchmarks.md and docs/benchmarks.svg. Not a
//! question itself: `make bench` runs it after the others.

mod common;
mod report {
    pub(crate) mod machine;
    pub(crate) mod plot;
    pub(crate) mod table;
}

use common::results::Results;
use std::path::Path;

const BEGIN: &str = "<!-- Written by `make bench` from here ... -->";
const END: &str = "<!-- ... to here. -->";

fn main() {
    let results = Results::load();
    if results.rows.is_empty() {
        println!("no results yet: `make bench` runs the benches first");
        return;
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let tables = report::table::tables(&results);
    println!("\n{tables}");
    let text = format!(
        "{BEGIN}\n\n{}\n![Time per operation, and when to upgrade](benchmarks.svg)\n\n{tables}{END}",
        report::machine::describe(&results)
    );
    let file = docs.join("benchmarks.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/benchmarks.md has lost its first marker");
    let (_, after) = rest.split_once(END).expect("docs/benchmarks.md has lost its last marker");
    std::fs::write(&file, format!("{before}{text}{after}")).unwrap();
    report::plot::draw(&results, &docs.join("benchmarks.svg"));
    println!("written to {} and benchmarks.svg", file.display());
}
