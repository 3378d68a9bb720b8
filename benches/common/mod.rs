//! Criterion asks the questions of `sockshim bench`, and keeps the answers: it tells whether a change of the code
//! made a difference. The measuring itself is crates/bench's.

use criterion::{BenchmarkId, Criterion, Throughput};
use sockshim_bench::measurement::Measurement;
use sockshim_bench::question::Question;
use sockshim_bench::questions::GROUPS;
use sockshim_bench::results::Measure;
use sockshim_bench::run::Run;
use std::path::PathBuf;
use std::time::Duration;

/// `main` of a bench: asks the questions of these groups.
pub(crate) fn ask(groups: &[&str]) {
    if sockshim_bench::work_if_asked() {
        return;
    }
    let run = Run::new(&library(), quick()).unwrap_or_else(|trouble| panic!("{trouble}"));
    let mut criterion = config().configure_from_args();
    for group in GROUPS.iter().filter(|group| groups.contains(&group.name)) {
        for question in group.questions(run.quick) {
            put(&mut criterion, &run, &question);
        }
    }
    criterion.final_summary();
}

/// Every sample of one backend is accompanied by one of each other backend.
fn put(criterion: &mut Criterion, run: &Run, question: &Question) {
    let mut measurement = None;
    let mut group = criterion.benchmark_group(question.group);
    if let Measure::Throughput(bytes) = question.measure {
        group.throughput(Throughput::Bytes(bytes));
    }
    for (index, backend) in question.backends.iter().enumerate() {
        group.bench_function(BenchmarkId::new(backend.name, &question.row), |bencher| {
            bencher.iter_custom(|count| {
                // Started by the first that criterion's filter lets through.
                let measurement: &mut Measurement = measurement.get_or_insert_with(|| {
                    Measurement::start(run, question).unwrap_or_else(|trouble| panic!("{trouble}"))
                });
                let ns = measurement.round_of(index, count).unwrap_or_else(|trouble| panic!("{trouble}"));
                Duration::from_nanos(ns as u64)
            });
        });
    }
    group.finish();
}

/// `BENCH_LIBRARY`, or the one that Cargo builds beside the bench.
fn library() -> PathBuf {
    std::env::var_os("BENCH_LIBRARY").map_or_else(
        || std::env::current_exe().expect("a running program").with_file_name("libsockshim.so"),
        PathBuf::from,
    )
}

/// `BENCH_QUICK=1`: rough figures.
fn quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some_and(|value| value == "1")
}

fn config() -> Criterion {
    let (samples, warm_up, measurement) = if quick() { (10, 60, 300) } else { (25, 200, 1250) };
    Criterion::default()
        .sample_size(samples)
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(Duration::from_millis(measurement))
        .nresamples(5_000)
        .without_plots()
}
