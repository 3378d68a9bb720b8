//! Writes what the benches found to docs/benchmarks.md and docs/benchmarks.svg.
fn main() {}
