//! The plot: time per operation of libc and sockshim side by side, and below it the price of a short life.

use super::table::sections;
use crate::common::results::{Results, Row};
use plotters::coord::ranged1d::{IntoSegmentedCoord as _, SegmentValue};
use plotters::prelude::*;
use std::path::Path;

const LIBC: RGBColor = RGBColor(150, 150, 150);
const SOCKSHIM: RGBColor = RGBColor(30, 110, 190);
const LINES: [RGBColor; 9] = [
    RGBColor(30, 110, 190),
    RGBColor(0, 0, 0),
    RGBColor(200, 60, 50),
    RGBColor(230, 140, 30),
    RGBColor(200, 180, 20),
    RGBColor(110, 170, 50),
    RGBColor(40, 150, 130),
    RGBColor(130, 90, 180),
    RGBColor(200, 90, 160),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Outcome = Result<(), Box<dyn std::error::Error>>;

pub(crate) fn draw(results: &Results, file: &Path) {
    let sections = sections(results);
    let (many, few): (Vec<_>, Vec<_>) = sections.iter().partition(|(_, rows)| rows[0].entrants.len() > 6);
    let bars: Vec<(String, &Row)> = few
        .iter()
        .flat_map(|(title, rows)| rows.iter().map(move |row| (format!("{title}: {}", row.row), *row)))
        .collect();
    let height = 110 + 24 * bars.len() as u32;
    let root = SVGBackend::new(file, (1000, height + 400 * many.len() as u32)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let (upper, mut lower) = root.split_vertically(height);
    times(&upper, &bars).unwrap();
    for (title, rows) in many {
        let (part, rest) = lower.split_vertically(400);
        lives(&part, title, rows).unwrap();
        lower = rest;
    }
    root.present().unwrap();
}

/// Two bars per question, on a logarithmic axis.
fn times(area: &Area<'_>, bars: &[(String, &Row)]) -> Outcome {
    if bars.is_empty() {
        return Ok(());
    }
    let all = || bars.iter().flat_map(|(_, row)| row.entrants[..2].iter().map(|entrant| entrant.ns.median));
    let least = 10_f64.powf((all().fold(f64::MAX, f64::min) / 1.5).log10().floor());
    let most = all().fold(0.0, f64::max) * 1.5;
    let count = bars.len() as i32;
    let mut chart = ChartBuilder::on(area)
        .caption("Time per operation, shorter is better", ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(330)
        .build_cartesian_2d((least..most).log_scale(), (0..count - 1).into_segmented())?;
    let name = |value: &SegmentValue<i32>| match value {
        SegmentValue::CenterOf(index) => {
            bars.get((count - 1 - index) as usize).map_or(String::new(), |(name, _)| name.clone())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .x_desc("nanoseconds per operation (logarithmic)")
        .y_desc("operation")
        .x_label_formatter(&|ns| format!("{ns:.0}"))
        .y_label_formatter(&name)
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    for (which, color, label, margins) in [(0, LIBC, "libc", (3, 12)), (1, SOCKSHIM, "sockshim", (12, 3))] {
        let series = bars.iter().enumerate().map(|(index, (_, row))| {
            let place = SegmentValue::Exact(count - 1 - index as i32);
            let end = SegmentValue::Exact(count - index as i32);
            let corners = [(least, place), (row.entrants[which].ns.median, end)];
            let mut bar = Rectangle::new(corners, color.filled());
            bar.set_margin(margins.0, margins.1, 0, 0);
            bar
        });
        chart
            .draw_series(series)?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 15, y + 5)], color.filled()));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(())
}

/// Time per connection relative to libc, by its length, a line per threshold.
fn lives(area: &Area<'_>, title: &str, rows: &[&Row]) -> Outcome {
    let point =
        |row: &Row, way: usize| (row.row.parse::<f64>().unwrap_or(1.0), 1.0 / row.entrants[way].speed.median);
    let ways = rows[0].entrants.len();
    let most = rows.iter().flat_map(|row| (1..ways).map(|way| point(row, way).1)).fold(1.0, f64::max);
    let trips = point(rows[0], 0).0..point(rows[rows.len() - 1], 0).0;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{title}; lines by SOCKSHIM_UPGRADE_AFTER"), ("sans-serif", 20))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(60)
        .build_cartesian_2d(trips.log_scale().base(2.0), 0.0..most * 1.05)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("round trips of 64 bytes in the connection (logarithmic)")
        .y_desc("time, libc = 1")
        .x_label_formatter(&|trips| format!("{trips:.0}"))
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    for (way, color) in (1..ways).zip(LINES.into_iter().cycle()) {
        let line = LineSeries::new(rows.iter().map(|row| point(row, way)), color.stroke_width(2));
        chart
            .draw_series(line)?
            .label(&rows[0].entrants[way].name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(())
}
