//! Results as one self-contained page: charts, a table, and what they mean; nothing is fetched from anywhere.

mod engine;
mod machine;
mod serve;

use std::fmt::Write as _;

pub use engine::{engine_charts, engine_page, engine_sheet};
pub use machine::{machine_page, machine_sheet};
pub use serve::{serve_page, serve_sheet};

use super::plot::{Axis, Chart, Series, escape};

/// Looks right on a phone, on a desk in the dark, and on paper.
const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884}\
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1rem;background:#fff;color:#1b1b1f}\
.note{color:#666;font-size:.85rem}\
@media(prefers-color-scheme:dark){body{background:#16161a;color:#e6e6ea}.note{color:#a0a0a8}}\
h1{font-size:1.4rem;margin:.5rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
p{max-width:46rem}svg{display:block;width:100%;max-width:36rem;height:auto;margin:1.5rem auto}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem;white-space:nowrap}\
th,td{padding:.3rem .6rem;text-align:right;border-bottom:1px solid var(--line)}\
th:first-child,td:first-child{text-align:left;padding-left:0}\
.bad{border-left:4px solid #d55e00;padding:.4rem .8rem;background:#d55e0022}\
@media print{body,.note{background:#fff;color:#000}body{max-width:none;font-size:11pt}svg{max-width:28rem}\
svg,tr{break-inside:avoid}.wide{overflow:visible}table{font-size:8pt;white-space:normal}}";

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

fn latency(title: &str, series: Vec<Series>) -> Chart {
    Chart {
        title: title.into(),
        subtitle: String::new(),
        x_label: "milliseconds".into(),
        y_label: "% at most so long".into(),
        x_axis: Axis::Log,
        y_axis: Axis::Linear,
        series,
    }
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
