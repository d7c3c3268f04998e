//! Results as one self-contained page: charts, a table, and what they mean; nothing is fetched from anywhere.

use std::fmt::Write as _;

use super::load::Arrival;
use super::load::summary::Summary;
use super::machine::{Bandwidth, Machine, Peak};
use super::plot::{Axis, Chart, Series, Style, distribution, escape, sheet};
use super::report::{params, size, timer_note};
use super::row::{Row, floats};
use super::stats::{mean, sample_sd};

/// Looks right on a phone, on a desk in the dark, and on paper.
const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884}\
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:0 auto;padding:1rem;background:#fff;color:#1b1b1f}\
@media(prefers-color-scheme:dark){body{background:#16161a;color:#e6e6ea}}\
h1{font-size:1.4rem;margin:.5rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
svg{display:block;width:100%;max-width:36rem;height:auto;margin:1.5rem auto}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;white-space:nowrap}\
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid var(--line)}\
th:first-child,td:first-child{text-align:left;padding-left:0}\
.bad{border-left:4px solid #d55e00;padding:.4rem .8rem;background:#d55e0022}\
small,.note{color:#777;font-size:.85rem}\
@media print{body{background:#fff;color:#000;max-width:none;font-size:11pt}svg,tr{break-inside:avoid}\
.wide{overflow:visible}table{font-size:8pt;white-space:normal}}";

fn page(title: &str, lead: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><h1>{title}</h1><p class=\"note\">{lead}</p>\n{body}\
         </body></html>\n",
        title = escape(title),
        lead = escape(lead)
    )
}

/// The page of engine results; `incomplete` says why rows are missing.
pub fn engine_page(rows: &[Row], incomplete: Option<&str>) -> String {
    let lead = rows.first().map_or_else(String::new, |row| {
        format!(
            "{}, {} threads, {}; {}; {}",
            super::system::cpu_name(),
            row.test.n_threads,
            row.model.kernel_class,
            super::row::BUILD_COMMIT,
            row.test_time
        )
    });
    let mut body = String::new();
    let invalid = rows.iter().filter_map(|row| Some(format!("{}: {}", row.test, row.invalid.as_ref()?)));
    for problem in incomplete.map(str::to_owned).into_iter().chain(invalid) {
        let _ = write!(body, "<p class=\"bad\">{}</p>", escape(&problem));
    }
    for chart in engine_charts(rows) {
        body += &chart.svg(0.0);
    }
    body += &engine_table(rows);
    body += "<p class=\"note\">t/s: mean ± sample standard deviation. GB/s: weights, keys and values that the test must \
             read. % of limit: generation against the memory bandwidth, prompts against the arithmetic, both as measured on \
             this machine with as many threads; above 100 where the caches hold the model.</p>";
    let _ = write!(body, "<p class=\"note\">{}</p>", escape(&timer_note(rows)));
    page("MommyGPT bench", &lead, &body)
}

/// The charts alone.
pub fn engine_sheet(rows: &[Row]) -> String {
    sheet(&engine_charts(rows))
}

/// What can be drawn of some rows: only what varies.
pub fn engine_charts(rows: &[Row]) -> Vec<Chart> {
    let speed = |x_label: &str, title: &str, series| Chart {
        title: title.into(),
        x_label: x_label.into(),
        y_label: "tokens/s".into(),
        x_axis: Axis::Linear,
        y_axis: Axis::Linear,
        series,
    };
    let mut charts = Vec::new();
    let (generation, prompts): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.test.n_gen > 0);
    for (what, rows) in [("Prompts", prompts), ("Generation", generation)] {
        let at_once =
            |row: &Row| if row.test.n_seqs > 1 { format!(" x {}", row.test.n_seqs) } else { String::new() };
        let by_depth = series_by(&rows, |row| row.test.n_depth, |row| kind(row) + &at_once(row));
        if !by_depth.is_empty() {
            charts.push(speed("depth (positions)", &format!("{what}: speed by depth"), by_depth));
        }
        let by_seqs = series_by(&rows, |row| row.test.n_seqs, |row| row.test.name());
        if !by_seqs.is_empty() {
            charts.push(speed("sequences at once", &format!("{what}: speed by concurrency"), by_seqs));
        }
    }
    charts.extend(roofline(rows));
    let gaps: Vec<Series> = rows
        .iter()
        .filter(|row| !row.gaps_ns.is_empty())
        .map(|row| {
            let mut ms: Vec<f64> = floats(&row.gaps_ns).iter().map(|ns| ns / 1e6).collect();
            ms.sort_unstable_by(f64::total_cmp);
            distribution(&format!("{} {}", row.model.description.model_type, row.test), &ms)
        })
        .collect();
    if !gaps.is_empty() {
        charts.push(latency("Time between tokens", gaps));
    }
    charts
}

fn latency(title: &str, series: Vec<Series>) -> Chart {
    Chart {
        title: title.into(),
        x_label: "milliseconds".into(),
        y_label: "% at most so long".into(),
        x_axis: Axis::Log,
        y_axis: Axis::Linear,
        series,
    }
}

/// `pp512` and `tg128` are kinds of test; a depth is none.
fn kind(row: &Row) -> String {
    let name = row.test.name();
    name.split(" @").next().unwrap_or(&name).to_owned()
}

/// Speeds by `x`, one series for everything else; only series of two points or more, because one shows no course.
fn series_by(rows: &[&Row], x: impl Fn(&Row) -> usize, rest: impl Fn(&Row) -> String) -> Vec<Series> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    let same = |a: &Row, b: &Row| {
        rest(a) == rest(b)
            && a.model.filename == b.model.filename
            && a.test.n_threads == b.test.n_threads
            && a.test.n_ubatch == b.test.n_ubatch
    };
    for &row in rows {
        match groups.iter_mut().find(|group| same(group[0], row)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let is_course = |group: &Vec<&Row>| group.iter().any(|row| x(row) != x(group[0]));
    groups
        .into_iter()
        .filter(is_course)
        .map(|group| {
            let mut points: Vec<(f64, f64)> =
                group.iter().map(|row| (x(row) as f64, mean(&row.samples_ts()))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let first = group[0];
            let name = format!(
                "{} {}, {} threads",
                first.model.description.model_type,
                rest(first),
                first.test.n_threads
            );
            Series { name, points, labels: Vec::new(), style: Style::Marked }
        })
        .collect()
}

/// More labels than these would stand on each other.
const LABELLED_POINTS: usize = 8;

/// Operations a second over operations per byte, under what memory and arithmetic allow (Williams, Waterman and
/// Patterson, 2009).
fn roofline(rows: &[Row]) -> Option<Chart> {
    let measured: Vec<&Row> =
        rows.iter().filter(|row| row.limits.read_bandwidth > 0.0 && !row.samples_ns.is_empty()).collect();
    let intensity = |row: &Row| row.n_operations / row.bytes_read.max(1) as f64;
    let (low, high) = measured.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), row| {
        (low.min(intensity(row)), high.max(intensity(row)))
    });
    let first = *measured.first()?;
    let ridge = first.limits.arithmetic / first.limits.read_bandwidth;
    let (from, to) = ((low / 3.0).min(ridge / 3.0), (high * 3.0).max(ridge * 3.0));
    let gops = |intensity: f64| (intensity * first.limits.read_bandwidth).min(first.limits.arithmetic) / 1e9;
    let limit = Series {
        name: format!(
            "limit: {:.1} GB/s, {:.0} Gop/s, {} threads",
            first.limits.read_bandwidth / 1e9,
            first.limits.arithmetic / 1e9,
            first.test.n_threads
        ),
        points: [from, ridge, to].map(|x| (x, gops(x))).to_vec(),
        labels: Vec::new(),
        style: Style::Limit,
    };
    let mut series = vec![limit];
    let has_labels = measured.len() <= LABELLED_POINTS;
    let mut rest = measured;
    while let Some(&first) = rest.first() {
        // With labels a model is one kind of point, else its prompts and its generation are two.
        let is_same = |row: &Row| {
            row.model.filename == first.model.filename
                && (has_labels || (row.test.n_gen > 0) == (first.test.n_gen > 0))
        };
        let (of, others): (Vec<&Row>, Vec<&Row>) = rest.iter().partition(|row| is_same(row));
        let what = match (has_labels, first.test.n_gen > 0) {
            (true, _) => "",
            (false, true) => ", generation",
            (false, false) => ", prompts",
        };
        series.push(Series {
            name: format!("{}{what}", first.model.description.model_type),
            points: of.iter().map(|row| (intensity(row), row.gops())).collect(),
            labels: if has_labels { of.iter().map(|row| row.test.to_string()).collect() } else { Vec::new() },
            style: Style::Points,
        });
        rest = others;
    }
    Some(Chart {
        title: "Roofline: how far from what this machine can do".into(),
        x_label: "operations per byte read".into(),
        y_label: "Gop/s".into(),
        x_axis: Axis::Log,
        y_axis: Axis::Log,
        series,
    })
}

fn table(title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = format!("<h2>{}</h2><div class=\"wide\"><table><thead><tr>", escape(title));
    for name in head {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out += "</tr></thead><tbody>";
    for cells in rows {
        out += "<tr>";
        for cell in cells {
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out += "</tr>";
    }
    out + "</tbody></table></div>"
}

fn engine_table(rows: &[Row]) -> String {
    let head = [
        "model",
        "size",
        "params",
        "threads",
        "np",
        "test",
        "t/s",
        "TTFT ms",
        "GB/s",
        "Gop/s",
        "% of limit",
        "peak RSS",
        "tokens",
    ];
    let cells = |row: &Row| {
        let ts = row.samples_ts();
        let valid = if row.invalid.is_some() { " invalid" } else { "" };
        vec![
            row.model.description.model_type.clone(),
            size(row.model.description.size),
            params(row.model.description.n_params),
            row.test.n_threads.to_string(),
            row.test.n_seqs.to_string(),
            row.test.name(),
            format!("{:.2} ± {:.2}{valid}", mean(&ts), sample_sd(&ts)),
            format!("{:.2}", row.ttft_ms()),
            format!("{:.2}", row.bandwidth_gbps()),
            format!("{:.1}", row.gops()),
            row.roofline_pct().map_or_else(|| "-".into(), |p| format!("{p:.1}")),
            size(row.peak_rss),
            row.tokens_hash.clone(),
        ]
    };
    table("All rows", &head, rows.iter().map(cells))
}

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

/// The page of server results.
pub fn serve_page(summaries: &[Summary], server: &str, model: Option<&str>) -> String {
    let lead = format!("{server}; model {}; {}", model.unwrap_or("not named"), super::row::BUILD_COMMIT);
    let mut body = String::new();
    for problem in summaries.iter().filter_map(|s| Some(format!("{}: {}", s.load(), s.problem()?))) {
        let _ = write!(body, "<p class=\"bad\">{}</p>", escape(&problem));
    }
    for chart in serve_charts(summaries) {
        body += &chart.svg(0.0);
    }
    body += &serve_table(summaries);
    body += "<p class=\"note\">TTFT: send to first text. TPOT: (last - first) / (tokens - 1). ITL: between tokens. E2EL: send \
             to last token. All in milliseconds.</p>";
    page("MommyGPT bench serve", &lead, &body)
}

/// The charts alone.
pub fn serve_sheet(summaries: &[Summary]) -> String {
    sheet(&serve_charts(summaries))
}

/// One kind of latencies, in ascending order.
type Sorted = fn(&Summary) -> &[f64];

fn serve_charts(summaries: &[Summary]) -> Vec<Chart> {
    let (x_label, x): (&str, fn(&Summary) -> f64) = match summaries.first().map(|s| s.arrival) {
        Some(Arrival::Open { .. }) => ("requests a second", |s| match s.arrival {
            Arrival::Open { rate, .. } => rate,
            Arrival::Closed { .. } => 0.0,
        }),
        _ => ("requests at once", |s| match s.arrival {
            Arrival::Closed { concurrency } => concurrency as f64,
            Arrival::Open { .. } => 0.0,
        }),
    };
    let line = |name: &str, y: &dyn Fn(&Summary) -> f64| Series {
        name: name.to_owned(),
        points: summaries.iter().map(|s| (x(s), y(s))).collect(),
        labels: Vec::new(),
        style: Style::Marked,
    };
    let chart = |title: &str, y_label: &str, series| Chart {
        title: title.into(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        x_axis: Axis::Linear,
        y_axis: Axis::Linear,
        series,
    };
    let mut charts = Vec::new();
    if summaries.len() > 1 {
        let throughput = vec![line("generated by all together", &Summary::output_throughput)];
        charts.push(chart("Throughput", "tokens/s", throughput));
        for (title, times) in [
            ("Time to first token", (|s: &Summary| s.ttft.percentiles) as fn(&Summary) -> [f64; 3]),
            ("Time between tokens", |s| s.itl.percentiles),
        ] {
            let series =
                [("median", 0), ("p90", 1), ("p99", 2)].map(|(name, i)| line(name, &|s| times(s)[i]));
            charts.push(chart(title, "milliseconds", series.to_vec()));
        }
    }
    let distributions: [(&str, Sorted); 2] = [
        ("Distribution of the time to the first token", |s| &s.ttft.sorted),
        ("Distribution of the time between tokens", |s| &s.itl.sorted),
    ];
    for (title, sorted) in distributions {
        let series: Vec<Series> = summaries
            .iter()
            .filter(|s| !sorted(s).is_empty())
            .map(|s| distribution(&s.load(), sorted(s)))
            .collect();
        if !series.is_empty() {
            charts.push(latency(title, series));
        }
    }
    charts
}

fn serve_table(summaries: &[Summary]) -> String {
    let head = [
        "load", "answered", "failed", "req/s", "tok/s", "TTFT p50", "TTFT p99", "TPOT p50", "ITL p50",
        "ITL p99", "E2EL p50", "E2EL p99",
    ];
    let cells = |s: &Summary| {
        let ms = |value: f64| format!("{value:.1}");
        vec![
            s.load(),
            s.n_completed.to_string(),
            s.n_failed.to_string(),
            format!("{:.2}", s.request_throughput()),
            format!("{:.1}", s.output_throughput()),
            ms(s.ttft.percentiles[0]),
            ms(s.ttft.percentiles[2]),
            ms(s.tpot.percentiles[0]),
            ms(s.itl.percentiles[0]),
            ms(s.itl.percentiles[2]),
            ms(s.e2el.percentiles[0]),
            ms(s.e2el.percentiles[2]),
        ]
    };
    table("All rows", &head, summaries.iter().map(cells))
}
