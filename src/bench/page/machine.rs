//! The page of `bench machine`: reading by threads and page size, arithmetic by kind and instruction set.

use super::super::machine::{Bandwidth, Machine, Peak};
use super::super::plot::{Axis, Chart, Series, Style, sheet};
use super::{page, table};

/// The page of what a machine can do.
pub fn machine_page(machine: &Machine) -> String {
    let lead = format!("{}; measured {}", machine.fingerprint, machine.measured_at);
    let mut body: String = machine_charts(machine).iter().map(|chart| chart.svg(0.0)).collect();
    let pages = |row: &Bandwidth| {
        let refused = if row.granted { "" } else { " (not granted)" };
        vec![format!("{}{refused}", row.pages), row.n_threads.to_string(), format!("{:.2}", row.gbps)]
    };
    body += &table("Reading from memory", &["pages", "threads", "GB/s"], machine.bandwidth.iter().map(pages));
    let peaks = |row: &Peak| {
        vec![format!("{} {}", row.kind, row.isa), row.n_threads.to_string(), format!("{:.1}", row.gops)]
    };
    body += &table("Arithmetic", &["kind", "threads", "Gop/s"], machine.arithmetic.iter().map(peaks));
    body += "<p class=\"note\">The best of several passes. Memory: all threads read one large area together. Arithmetic: \
             additions and multiplications on registers; what a matrix product comes close to at best.</p>";
    page("MommyGPT bench machine", &lead, &body)
}

/// The charts alone.
pub fn machine_sheet(machine: &Machine) -> String {
    sheet(&machine_charts(machine))
}

fn machine_charts(machine: &Machine) -> Vec<Chart> {
    let chart = |title: &str, y_label: &str, points: Vec<(String, f64, f64)>| {
        let mut series: Vec<Series> = Vec::new();
        for (name, x, y) in points {
            match series.iter_mut().find(|known| known.name == name) {
                Some(known) => known.points.push((x, y)),
                None => {
                    series.push(Series {
                        name,
                        points: vec![(x, y)],
                        labels: Vec::new(),
                        style: Style::Marked,
                    });
                }
            }
        }
        Chart {
            title: title.into(),
            subtitle: String::new(),
            x_label: "threads".into(),
            y_label: y_label.into(),
            x_axis: Axis::Linear,
            y_axis: Axis::Linear,
            series,
        }
    };
    let read = machine.bandwidth.iter().map(|b| (format!("{} pages", b.pages), b.n_threads as f64, b.gbps));
    let peaks = machine.arithmetic.iter();
    let peaks = peaks.map(|p| (format!("{} {}", p.kind, p.isa), p.n_threads as f64, p.gops));
    vec![chart("Reading from memory", "GB/s", read.collect()), chart("Arithmetic", "Gop/s", peaks.collect())]
}
