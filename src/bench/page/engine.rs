//! The page of `bench`: speed by depth and concurrency, roofline, times between tokens, every row.

use std::fmt::Write as _;

use super::super::plot::{Axis, Chart, Series, Style, distribution, escape, sheet};
use super::super::report::{params, size, timer_note};
use super::super::row::{BUILD_COMMIT, Row, floats};
use super::super::stats::{mean, sample_sd};
use super::super::system;
use super::{latency, page, table};

/// The page of engine results; `incomplete` says why rows are missing.
pub fn engine_page(rows: &[Row], incomplete: Option<&str>) -> String {
    let lead = rows.first().map_or_else(String::new, |row| {
        let of = &row.model.description;
        let model = format!("{}, {}, {} parameters; ", of.model_type, size(of.size), params(of.n_params));
        format!(
            "{}{}, {} threads, {}; {}; {}",
            if is_one_model(rows) { model } else { String::new() },
            system::cpu_name(),
            row.test.n_threads,
            row.model.kernel_class,
            BUILD_COMMIT,
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
    let (generation, prompts): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.test.n_gen > 0);
    let mut charts = Vec::new();
    for (what, rows) in [("Prompts", &prompts), ("Generation", &generation)] {
        let at_once =
            |row: &Row| if row.test.n_seqs > 1 { format!(" x {}", row.test.n_seqs) } else { String::new() };
        let by_depth: Lines<'_> =
            &|rows| series_by(rows, |row| row.test.n_depth, |row| kind(row) + &at_once(row));
        let by_seqs: Lines<'_> = &|rows| series_by(rows, |row| row.test.n_seqs, |row| row.test.name());
        for (title, x_label, series) in [
            ("speed by depth", "depth (positions)", by_depth),
            ("speed by concurrency", "sequences at once", by_seqs),
        ] {
            let empty = Chart {
                title: format!("{what}: {title}"),
                subtitle: String::new(),
                x_label: x_label.into(),
                y_label: "tokens/s".into(),
                x_axis: Axis::Linear,
                y_axis: Axis::Linear,
                series: Vec::new(),
            };
            charts.extend(readable(rows, series, &empty));
        }
    }
    charts.extend(roofline(rows));
    let gaps: Lines<'_> = &|rows| {
        let names = Names::of(rows);
        let with_gaps = rows.iter().filter(|row| !row.gaps_ns.is_empty());
        let sorted = |row: &Row| {
            let mut ms: Vec<f64> = floats(&row.gaps_ns).iter().map(|ns| ns / 1e6).collect();
            ms.sort_unstable_by(f64::total_cmp);
            ms
        };
        with_gaps.map(|row| distribution(&names.name(row, &row.test.to_string()), &sorted(row))).collect()
    };
    charts.extend(readable(&generation, gaps, &latency("Time between tokens", Vec::new())));
    charts
}

/// What of some rows is drawn in one chart.
type Lines<'a> = &'a dyn Fn(&[&Row]) -> Vec<Series>;

/// One chart of all rows, or one of each model where the lines would be too many to tell apart.
fn readable(rows: &[&Row], series: Lines<'_>, empty: &Chart) -> Vec<Chart> {
    let mut models: Vec<Vec<&Row>> = Vec::new();
    for &row in rows {
        match models.iter_mut().find(|of| of[0].model.filename == row.model.filename) {
            Some(of) => of.push(row),
            None => models.push(vec![row]),
        }
    }
    let all = series(rows);
    let drawn: Vec<(&Row, Vec<Series>)> = match (rows.first(), models.len()) {
        (None, _) => Vec::new(),
        (Some(first), 1) => vec![(first, all)],
        (Some(_), _) if all.len() <= TOLD_APART => {
            return if all.is_empty() { Vec::new() } else { vec![Chart { series: all, ..empty.clone() }] };
        }
        _ => models.iter().map(|of| (of[0], series(of))).collect(),
    };
    let chart = |(first, series): (&Row, Vec<Series>)| {
        (!series.is_empty()).then(|| Chart {
            subtitle: first.model.description.model_type.clone(),
            series,
            ..empty.clone()
        })
    };
    drawn.into_iter().filter_map(chart).collect()
}

/// What a line's name must say, because it differs between the lines.
struct Names {
    models: bool,
    threads: bool,
}

impl Names {
    fn of(rows: &[&Row]) -> Self {
        let differs = |is: &dyn Fn(&Row, &Row) -> bool| rows.iter().any(|row| !is(row, rows[0]));
        Self {
            models: differs(&|a, b| a.model.filename == b.model.filename),
            threads: differs(&|a, b| a.test.n_threads == b.test.n_threads),
        }
    }

    fn name(&self, row: &Row, rest: &str) -> String {
        let model =
            if self.models { format!("{} ", row.model.description.model_type) } else { String::new() };
        let threads = if self.threads { format!(", {} threads", row.test.n_threads) } else { String::new() };
        format!("{model}{rest}{threads}")
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
    let names = Names::of(rows);
    let is_course = |group: &Vec<&Row>| group.iter().any(|row| x(row) != x(group[0]));
    groups
        .into_iter()
        .filter(is_course)
        .map(|group| {
            let mut points: Vec<(f64, f64)> =
                group.iter().map(|row| (x(row) as f64, mean(&row.samples_ts()))).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let first = group[0];
            Series { name: names.name(first, &rest(first)), points, labels: Vec::new(), style: Style::Marked }
        })
        .collect()
}

/// More lines than there are colours are hard to tell apart.
const TOLD_APART: usize = 7;
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
        title: "Roofline: how near this machine's limit".into(),
        subtitle: String::new(),
        x_label: "operations per byte read".into(),
        y_label: "Gop/s".into(),
        x_axis: Axis::Log,
        y_axis: Axis::Log,
        series,
    })
}

/// Test and speed stand first, so that a narrow screen shows them; the model only where there are several.
fn engine_table(rows: &[Row]) -> String {
    let has_models = !is_one_model(rows);
    let mut head = vec!["model", "test", "np", "threads", "t/s", "% of limit", "TTFT ms", "GB/s", "Gop/s"];
    head.extend(["peak RSS", "size", "params", "tokens"]);
    let is_shown = |name: &str| has_models || !["model", "size", "params"].contains(&name);
    let cells = |row: &Row| {
        let ts = row.samples_ts();
        let valid = if row.invalid.is_some() { " invalid" } else { "" };
        let cells = vec![
            row.model.description.model_type.clone(),
            row.test.name(),
            row.test.n_seqs.to_string(),
            row.test.n_threads.to_string(),
            format!("{:.2} ± {:.2}{valid}", mean(&ts), sample_sd(&ts)),
            row.roofline_pct().map_or_else(|| "-".into(), |p| format!("{p:.1}")),
            format!("{:.2}", row.ttft_ms()),
            format!("{:.2}", row.bandwidth_gbps()),
            format!("{:.1}", row.gops()),
            size(row.peak_rss),
            size(row.model.description.size),
            params(row.model.description.n_params),
            row.tokens_hash.clone(),
        ];
        head.iter().zip(cells).filter(|(name, _)| is_shown(name)).map(|(_, cell)| cell).collect()
    };
    let shown: Vec<&str> = head.iter().copied().filter(|name| is_shown(name)).collect();
    table("All rows", &shown, rows.iter().map(cells))
}

fn is_one_model(rows: &[Row]) -> bool {
    rows.iter().all(|row| row.model.filename == rows[0].model.filename)
}
