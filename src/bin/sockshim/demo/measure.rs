//! The same program with libc alone and with sockshim, in turn.

use std::io::{self, Write as _};
use std::time::Duration;

use super::Programs;
use super::child::Child;
use crate::Failure;

/// Prints the table.
pub(super) fn compare(programs: &Programs) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "The same program, with libc alone and with sockshim (medians of {RUNS} runs, taken in turn)\n"
    )?;
    writeln!(
        out,
        "    {:<28}{:>16}{:>16}{:>9}{:>15}{:>15}",
        "", "libc", "sockshim", "ratio", "CPU libc", "sockshim"
    )?;
    for question in &QUESTIONS {
        let mut sides = [Side::Libc, Side::Sockshim].map(|side| (side, 0, Vec::new()));
        for (side, count, _) in &mut sides {
            *count = count_for(&measure(programs, *side, question, question.first_count)?, question);
        }
        for _ in 0..RUNS {
            for (side, count, results) in &mut sides {
                results.push(measure(programs, *side, question, *count)?);
            }
        }
        let [libc, sockshim] = sides.map(|(_, _, results)| median(results));
        let ratio = match question.better {
            Better::Less => libc.figure / sockshim.figure,
            Better::More => sockshim.figure / libc.figure,
        };
        writeln!(
            out,
            "    {:<28}{:>16}{:>16}{:>8.1}x{:>12.2} us{:>12.2} us",
            question.title,
            question.show(libc.figure),
            question.show(sockshim.figure),
            ratio,
            libc.cpu_us,
            sockshim.cpu_us,
        )?;
        out.flush()?;
    }
    writeln!(out, "\n    ratio: how many times better sockshim is; CPU: both ends together, per message")?;
    Ok(())
}

/// One line of the table.
struct Question {
    title: &'static str,
    mode: &'static str,
    size: u32,
    unit: &'static str,
    better: Better,
    /// Few enough for the slower of the two.
    first_count: u64,
}

enum Better {
    Less,
    More,
}

impl Question {
    fn show(&self, figure: f64) -> String {
        match self.unit {
            "us" => format!("{figure:.2} us"),
            "M/s" => format!("{:.2} M/s", figure / 1e6),
            _ => format!("{:.2} GB/s", figure / 1e3),
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Libc,
    Sockshim,
}

#[derive(Clone, Copy)]
struct Outcome {
    /// As the program prints it: microseconds, messages per second, or megabytes per second.
    figure: f64,
    /// CPU time of both ends per message.
    cpu_us: f64,
    count: u64,
}

fn measure(programs: &Programs, side: Side, question: &Question, count: u64) -> Result<Outcome, Failure> {
    let start = |arguments: &[&str]| {
        Child::start(match side {
            Side::Libc => programs.with_libc("pingpong", arguments),
            Side::Sockshim => programs.under_sockshim("pingpong", arguments),
        })
    };
    let mut server = start(&["server"])?;
    let port = server.port()?;
    let client =
        start(&["client", &port, question.mode, &question.size.to_string(), &count.to_string()])?.finish()?;
    let server = server.finish()?;

    let figure = figure(&client.output).ok_or_else(|| {
        Failure::new(1, format!("pingpong printed something unexpected: {:?}", client.output))
    })?;
    let cpu = client.cpu + server.cpu;
    Ok(Outcome { figure, cpu_us: cpu.as_secs_f64() * 1e6 / count as f64, count })
}

/// The first number behind the colon of `pingpong`'s line.
fn figure(output: &str) -> Option<f64> {
    output.split_once(": ")?.1.split([' ', ',']).find_map(|word| word.parse().ok())
}

/// How many messages take about [`RUN_TIME`].
fn count_for(first: &Outcome, question: &Question) -> u64 {
    let per_second = match question.unit {
        "us" => 1e6 / first.figure,
        "M/s" => first.figure,
        _ => first.figure * 1e6 / f64::from(question.size),
    };
    ((per_second * RUN_TIME.as_secs_f64()) as u64).max(first.count)
}

fn median(mut results: Vec<Outcome>) -> Outcome {
    results.sort_by(|a, b| a.figure.total_cmp(&b.figure));
    results[results.len() / 2]
}

const QUESTIONS: [Question; 3] = [
    Question {
        title: "ping-pong, 64 bytes",
        mode: "latency",
        size: 64,
        unit: "us",
        better: Better::Less,
        first_count: 10_000,
    },
    Question {
        title: "messages one way, 64 bytes",
        mode: "messages",
        size: 64,
        unit: "M/s",
        better: Better::More,
        first_count: 500_000,
    },
    Question {
        title: "stream, writes of 64 KB",
        mode: "throughput",
        size: 65536,
        unit: "GB/s",
        better: Better::More,
        first_count: 10_000,
    },
];

const RUNS: usize = 3;

const RUN_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_the_first_number_behind_the_colon() {
        assert_eq!(figure("latency 64 bytes: median 53.49 us, 20905 round trips/s, ..."), Some(53.49));
        assert_eq!(
            figure("messages 64 bytes: 1210759 messages/s, client cpu 0.8 us each"),
            Some(1_210_759.0)
        );
        assert_eq!(figure("nonsense"), None);
    }
}
