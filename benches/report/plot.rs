//! The plots: a line per backend over what a group's rows vary, and bars for programs.

use plotters::coord::ranged1d::{IntoSegmentedCoord as _, SegmentValue};
use plotters::prelude::*;
use sockshim_bench::results::{Entrant, Measure, Row};
use std::path::Path;

/// A drawn plot.
pub(crate) struct Plot {
    pub(crate) group: &'static str,
    pub(crate) title: &'static str,
    pub(crate) file: String,
}

/// Draws what there are rows for into files of `folder`.
pub(crate) fn draw(rows: &[Row], folder: &Path) -> Result<Vec<Plot>, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut plots = Vec::new();
    for curve in &CURVES {
        let points: Vec<(f64, &Row)> = rows
            .iter()
            .filter(|row| row.group == curve.group)
            .filter_map(|row| Some((number(&row.row)?, row)))
            .collect();
        if points.len() > 1 {
            let file = format!("{}.svg", curve.group);
            curve.draw(&points, &folder.join(&file)).map_err(|error| format!("{file}: {error}"))?;
            plots.push(Plot { group: curve.group, title: curve.title, file });
        }
    }
    let programs: Vec<_> =
        rows.iter().filter(|row| PROGRAMS.contains(&row.group.as_str()) && row.control().is_none()).collect();
    if let Some(first) = programs.first() {
        let group = PROGRAMS.into_iter().find(|&name| name == first.group).unwrap_or(PROGRAMS[0]);
        let file = "programs.svg".to_owned();
        bars(&programs, &folder.join(&file)).map_err(|error| format!("{file}: {error}"))?;
        plots.push(Plot { group, title: "Programs, times libc", file });
    }
    Ok(plots)
}

/// Programs that others wrote, in one plot.
const PROGRAMS: [&str; 8] =
    ["redis", "nginx", "memcached", "postgres", "sockperf", "iperf3", "python", "ssh"];

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A plot with a line per backend.
struct Curve {
    group: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    of: fn(&Row, &Entrant) -> f64,
}

const CURVES: [Curve; 7] = [
    Curve {
        group: "pingpong",
        title: "There and back, two cores",
        x: "bytes in the message (logarithmic)",
        y: "microseconds per round trip (logarithmic)",
        of: |_, entrant| entrant.figure.median / 1e3,
    },
    Curve {
        group: "messages",
        title: "Messages one way, two cores",
        x: "bytes in the message (logarithmic)",
        y: "million messages per second (logarithmic)",
        of: |_, entrant| 1e3 / entrant.figure.median,
    },
    Curve {
        group: "stream",
        title: "Writes one way, two cores",
        x: "bytes in the write (logarithmic)",
        y: "GB per second (logarithmic)",
        of: |row, entrant| bytes(row) / entrant.figure.median,
    },
    Curve {
        group: "connections",
        title: "Requests of 64 B, epoll at both ends, two cores",
        x: "connections (logarithmic)",
        y: "thousand requests per second (logarithmic)",
        of: |_, entrant| 1e6 / entrant.figure.median,
    },
    Curve {
        group: "epoll",
        title: "64 B there and back, server in epoll_wait, two cores",
        x: "idle connections in the set (logarithmic)",
        y: "microseconds per round trip (logarithmic)",
        of: |_, entrant| entrant.figure.median / 1e3,
    },
    Curve {
        group: "upgrade",
        title: "Time per connection; lines by SOCKSHIM_UPGRADE_AFTER",
        x: "round trips of 64 bytes in the connection (logarithmic)",
        y: "times libc's time (logarithmic)",
        of: |_, entrant| 1.0 / entrant.to_libc.median,
    },
    Curve {
        group: "upgrade-two-cores",
        title: "Time per connection on two cores; lines by SOCKSHIM_UPGRADE_AFTER",
        x: "round trips of 64 bytes in the connection (logarithmic)",
        y: "times libc's time (logarithmic)",
        of: |_, entrant| 1.0 / entrant.to_libc.median,
    },
];

impl Curve {
    fn draw(&self, points: &[(f64, &Row)], file: &Path) -> Outcome {
        let root = SVGBackend::new(file, (WIDTH, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let series = self.series(points);
        let values = || series.iter().flat_map(|(_, line)| line.iter().map(|point| point.1));
        let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        let xs = || points.iter().map(|point| point.0);
        let (first, last) = (xs().fold(f64::MAX, f64::min), xs().fold(0.0, f64::max));
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(MARGIN)
            .margin_right(LEGEND)
            .x_label_area_size(45)
            .y_label_area_size(LABELS)
            .build_cartesian_2d((first..last).log_scale().base(2.0), (least / 1.3..most * 1.3).log_scale())?;
        chart
            .configure_mesh()
            .max_light_lines(0)
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| short(*y))
            .label_style(("sans-serif", 12))
            .axis_desc_style(("sans-serif", 14))
            .draw()?;
        for (index, (name, line)) in series.iter().enumerate() {
            let color = COLORS[index % COLORS.len()];
            chart
                .draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], color.stroke_width(2)));
            chart.draw_series(line.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
        }
        // Beside the lines, not on them.
        let beside = WIDTH.saturating_sub(MARGIN + LABELS + LEGEND).cast_signed() + 10;
        chart.configure_series_labels().position(SeriesLabelPosition::Coordinate(beside, 10)).draw()?;
        root.present()?;
        Ok(())
    }

    /// By name, the best of the raw rings as one.
    fn series(&self, points: &[(f64, &Row)]) -> Vec<(String, Vec<(f64, f64)>)> {
        let names =
            points[0].1.entrants.iter().filter(|entrant| !entrant.is_ring()).map(|entrant| &entrant.name);
        let mut series: Vec<_> = names
            .map(|name| {
                let line =
                    points.iter().filter_map(|&(x, row)| Some((x, (self.of)(row, row.entrant(name)?))));
                (name.clone(), line.collect())
            })
            .collect();
        let limit: Vec<_> =
            points.iter().filter_map(|&(x, row)| Some((x, (self.of)(row, row.ring()?)))).collect();
        if !limit.is_empty() {
            series.push(("raw ring".to_owned(), limit));
        }
        series
    }
}

/// How many times as good as libc, a bar per program.
fn bars(rows: &[&Row], file: &Path) -> Outcome {
    let ratio = |row: &Row| row.entrant("sockshim").map_or(1.0, |entrant| entrant.to_libc.median);
    let count = rows.len() as i32;
    let most = rows.iter().map(|row| ratio(row)).fold(1.0, f64::max) * 1.2;
    let root = SVGBackend::new(file, (900, 110 + 26 * rows.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Programs on sockshim, both ends preloaded", ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(320)
        .build_cartesian_2d((0.5..most).log_scale(), (0..count - 1).into_segmented())?;
    let name = |value: &SegmentValue<i32>| match value {
        SegmentValue::CenterOf(index) => rows
            .get((count - 1 - index) as usize)
            .map_or(String::new(), |row| format!("{}: {}", row.group, row.row)),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_max_light_lines(0)
        .y_labels(rows.len())
        .x_desc("times as good as libc (logarithmic)")
        .y_desc("program")
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&name)
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    chart.draw_series(rows.iter().enumerate().map(|(index, row)| {
        let place = SegmentValue::Exact(count - 1 - index as i32);
        let end = SegmentValue::Exact(count - index as i32);
        let mut bar = Rectangle::new([(1.0, place), (ratio(row), end)], COLORS[1].filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    }))?;
    root.present()?;
    Ok(())
}

/// What a row varies, when that is a number and nothing else: `64 KB`, `10 idle`, `16 connections`.
fn number(row: &str) -> Option<f64> {
    if row.contains(',') {
        return None;
    }
    let (number, unit) = row.split_once(' ').unwrap_or((row, ""));
    let scale = match unit {
        "KB" => 1024.0,
        "MB" => 1048576.0,
        _ => 1.0,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

/// Bytes of an operation.
fn bytes(row: &Row) -> f64 {
    match row.measure {
        Measure::Throughput(bytes) => bytes as f64,
        _ => number(&row.row).unwrap_or(0.0),
    }
}

fn short(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

const WIDTH: u32 = 900;
const MARGIN: u32 = 10;
/// For the names of the lines.
const LEGEND: u32 = 130;
/// For the numbers on the vertical axis.
const LABELS: u32 = 65;

const COLORS: [RGBColor; 9] = [
    RGBColor(150, 150, 150),
    RGBColor(30, 110, 190),
    RGBColor(200, 60, 50),
    RGBColor(230, 140, 30),
    RGBColor(0, 0, 0),
    RGBColor(110, 170, 50),
    RGBColor(40, 150, 130),
    RGBColor(130, 90, 180),
    RGBColor(200, 90, 160),
];
