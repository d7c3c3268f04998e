//! Line charts as SVG: a few hundred lines instead of a library, because a report must be one file that needs nothing.

mod scale;

use std::fmt::Write as _;

use scale::{Scale, shown};

/// Colours that people with any kind of colour vision can tell apart (Okabe and Ito), readable on white and on black.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c"];
/// Strokes of the first seven series, of the next seven, and of all others.
const DASHES: [&str; 3] = ["", " stroke-dasharray=\"7 3\"", " stroke-dasharray=\"2 3\""];
/// The stroke of a limit.
const LIMIT_DASH: &str = " stroke-dasharray=\"5 4\"";
/// Drawing units of a chart; it is scaled to the width of the page.
pub const WIDTH: f64 = 440.0;
/// Height without the legend.
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 46.0;
/// A line of the legend.
const LEGEND_LINE: f64 = 18.0;
/// Room between the x axis's name and the legend.
const LEGEND_GAP: f64 = 10.0;
/// Characters that fit beside a line of the legend, and into the title.
const LEGEND_CHARS: usize = 50;
/// Labels of points keep this distance from each other.
const LABEL_HEIGHT: f64 = 13.0;

/// How an axis counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Axis {
    /// Evenly, from 0.
    Linear,
    /// By factors.
    Log,
}

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// A line with a mark on every point.
    Marked,
    /// A line alone.
    Line,
    /// A broken line alone: a limit.
    Limit,
    /// Marks alone.
    Points,
}

/// Points of one kind.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// In the legend; empty leaves it out of there.
    pub name: String,
    /// In ascending order of x.
    pub points: Vec<(f64, f64)>,
    /// Beside each point; empty or as many as points.
    pub labels: Vec<String>,
    /// How it is drawn.
    pub style: Style,
}

/// A chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below the title, smaller: of what; may be empty.
    pub subtitle: String,
    /// Name of the x axis, with its unit.
    pub x_label: String,
    /// Name of the y axis, with its unit.
    pub y_label: String,
    /// How x counts.
    pub x_axis: Axis,
    /// How y counts.
    pub y_axis: Axis,
    /// What is drawn.
    pub series: Vec<Series>,
}

impl Chart {
    /// Height in drawing units, legend included.
    pub fn height(&self) -> f64 {
        HEIGHT + LEGEND_GAP + LEGEND_LINE * self.named().count() as f64
    }

    fn named(&self) -> impl Iterator<Item = (usize, &Series)> {
        self.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty())
    }

    /// The chart as an `svg` element whose upper edge is at `y`; empty where there is nothing to draw.
    pub fn svg(&self, y: f64) -> String {
        let all = || self.series.iter().flat_map(|series| series.points.iter().copied());
        let (Some(x), Some(y_scale)) = (
            Scale::over(self.x_axis, all().map(|p| p.0), LEFT, WIDTH - RIGHT),
            Scale::over(self.y_axis, all().map(|p| p.1), HEIGHT - BOTTOM, TOP),
        ) else {
            return String::new();
        };
        let height = self.height();
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" y=\"{y}\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"currentColor\">\
             <title>{title}</title><text x=\"{LEFT}\" y=\"16\" font-size=\"15\" font-weight=\"600\">{title}</text>\
             <text x=\"{LEFT}\" y=\"32\" font-size=\"12\" opacity=\".75\">{subtitle}</text>",
            title = escape(&self.title),
            subtitle = escape(&cut(&self.subtitle))
        );
        self.frame(&x, &y_scale, &mut out);
        for (i, series) in self.series.iter().enumerate() {
            draw(series, i, &x, &y_scale, &mut out);
        }
        self.labels(&x, &y_scale, &mut out);
        for (line, (i, series)) in self.named().enumerate() {
            let top = HEIGHT + LEGEND_GAP + LEGEND_LINE * line as f64;
            let (dash, colour, end) = (dash(i, series.style), colour(i), LEFT + 22.0);
            let _ = if series.style == Style::Points {
                write!(out, "<circle cx=\"{}\" cy=\"{top}\" r=\"3.5\" fill=\"{colour}\"/>", LEFT + 11.0)
            } else {
                write!(
                    out,
                    "<line x1=\"{LEFT}\" x2=\"{end}\" y1=\"{top}\" y2=\"{top}\" stroke=\"{colour}\" stroke-width=\"2.5\"{dash}/>"
                )
            };
            let name = escape(&cut(&series.name));
            let _ = write!(out, "<text x=\"{}\" y=\"{}\">{name}</text>", LEFT + 30.0, top + 4.0);
        }
        out + "</svg>"
    }

    /// Grid, ticks and names of the axes.
    fn frame(&self, x: &Scale, y: &Scale, out: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = write!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"currentColor\" opacity=\".15\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                shown(tick)
            );
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            let _ = write!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"currentColor\" opacity=\".08\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                shown(tick)
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 10.0,
            escape(&self.x_label),
            f64::midpoint(TOP, bottom),
            escape(&self.y_label)
        );
    }

    /// Labels of points, on the side that has room, pushed apart where they would stand on each other.
    fn labels(&self, x: &Scale, y: &Scale, out: &mut String) {
        let of = |s: &'_ Series| -> Vec<(f64, f64, String)> {
            let places = s.points.iter().map(|p| (x.place(p.0), y.place(p.1)));
            places.zip(&s.labels).map(|((x, y), label)| (x, y, escape(label))).collect()
        };
        let is_left = |label: &(f64, f64, String)| label.0 < f64::midpoint(LEFT, WIDTH);
        let (left, right): (Vec<_>, Vec<_>) = self.series.iter().flat_map(of).partition(is_left);
        for (mut labels, dx, anchor) in [(left, 8.0, "start"), (right, -8.0, "end")] {
            labels.sort_by(|a, b| a.1.total_cmp(&b.1));
            let heights = pushed_apart(labels.iter().map(|l| l.1), HEIGHT - BOTTOM - LABEL_HEIGHT / 2.0);
            for ((at_x, _, label), at_y) in labels.iter().zip(heights) {
                let _ = write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" font-size=\"11\">{label}</text>",
                    at_x + dx,
                    at_y + 4.0
                );
            }
        }
    }
}

/// Ascending heights with [`LABEL_HEIGHT`] between them: down as far as `bottom`, and up from there.
fn pushed_apart(heights: impl Iterator<Item = f64>, bottom: f64) -> Vec<f64> {
    let mut last = f64::NEG_INFINITY;
    let mut apart: Vec<f64> = heights
        .map(|height| {
            last = height.max(last + LABEL_HEIGHT);
            last
        })
        .collect();
    let mut most = bottom;
    for height in apart.iter_mut().rev() {
        *height = height.min(most);
        most = *height - LABEL_HEIGHT;
    }
    apart
}

fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

fn dash(i: usize, style: Style) -> &'static str {
    match style {
        Style::Limit => LIMIT_DASH,
        Style::Points => "",
        Style::Marked | Style::Line => DASHES[(i / COLOURS.len()).min(DASHES.len() - 1)],
    }
}

/// As much of a name as fits.
fn cut(name: &str) -> String {
    if name.chars().count() <= LEGEND_CHARS {
        return name.to_owned();
    }
    name.chars().take(LEGEND_CHARS - 1).chain(['…']).collect()
}

fn draw(series: &Series, i: usize, x: &Scale, y: &Scale, out: &mut String) {
    let colour = colour(i);
    let places: Vec<(f64, f64)> = series.points.iter().map(|p| (x.place(p.0), y.place(p.1))).collect();
    if series.style != Style::Points {
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let dash = dash(i, series.style);
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
            path.join(" ")
        );
    }
    if matches!(series.style, Style::Marked | Style::Points) {
        for (x, y) in places {
            let _ = write!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>");
        }
    }
}

/// Charts below each other, as one file.
pub fn sheet(charts: &[Chart]) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    for chart in charts {
        body += &chart.svg(y);
        y += chart.height() + 16.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         color=\"#1b1b1f\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}</svg>\n"
    )
}

/// Text that may stand in markup: whatever a file calls itself.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

/// How many of the values, in percent, are at most so large: the distribution of latencies, thinned to what can be seen.
pub fn distribution(name: &str, sorted: &[f64]) -> Series {
    const POINTS: usize = 200;
    let n = sorted.len();
    let step = n.div_ceil(POINTS).max(1);
    let at = |i: usize| (sorted[i], 100.0 * (i + 1) as f64 / n as f64);
    let mut points: Vec<(f64, f64)> = (0..n).step_by(step).map(at).collect();
    if n > 0 && !(n - 1).is_multiple_of(step) {
        points.push(at(n - 1));
    }
    Series { name: name.to_owned(), points, labels: Vec::new(), style: Style::Line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, axis: Axis) -> Chart {
        Chart {
            title: "a <b> & c".into(),
            subtitle: "<b>".repeat(99),
            x_label: "x".into(),
            y_label: "y".into(),
            x_axis: axis,
            y_axis: axis,
            series: vec![Series { name: "s".into(), points, labels: vec![], style: Style::Marked }],
        }
    }

    #[test]
    fn charts_are_well_formed_for_any_numbers() {
        for points in [
            vec![(1.0, 1.0)],
            vec![(0.0, 0.0), (0.0, 0.0)],
            vec![(1e-9, 1e12), (1e9, 3.0)],
            vec![(f64::NAN, 1.0), (2.0, f64::INFINITY), (3.0, 4.0)],
        ] {
            for axis in [Axis::Linear, Axis::Log] {
                let svg = chart(points.clone(), axis).svg(0.0);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?} {axis:?}: {svg}");
                assert!(!svg.contains("<b>"), "a title is text");
            }
        }
        assert_eq!(chart(vec![], Axis::Linear).svg(0.0), "");
    }

    #[test]
    fn labels_neither_overlap_nor_leave_the_chart() {
        assert_eq!(pushed_apart([10.0, 50.0].into_iter(), 200.0), [10.0, 50.0]);
        let apart = pushed_apart([10.0, 12.0, 195.0, 196.0, 197.0].into_iter(), 200.0);
        assert_eq!(apart, [10.0, 23.0, 174.0, 187.0, 200.0]);
    }

    #[test]
    fn a_distribution_ends_at_its_largest_value() {
        let values: Vec<f64> = (1..=999).map(f64::from).collect();
        let points = distribution("d", &values).points;
        assert!(points.len() <= 202);
        assert_eq!(points.last(), Some(&(999.0, 100.0)));
        assert!(distribution("d", &[]).points.is_empty());
    }
}
