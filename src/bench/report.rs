//! Rows as text: llama-bench's Markdown, CSV, JSON, JSON lines and SQL (`printer` and its heirs in `llama-bench.cpp`).

use std::fmt::Write as _;
use std::io::{self, Write};

use super::page;
use super::plan::Lists;
use super::row::{BUILD_COMMIT, BUILD_NUMBER, Row, Value};
use super::stats::{mean, sample_sd};

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A table to read and to paste.
    Md,
    /// One line a row, all fields.
    Csv,
    /// A list of objects.
    Json,
    /// One object a line.
    Jsonl,
    /// A table for `SQLite`.
    Sql,
    /// One self-contained page with plots.
    Html,
    /// The plots alone.
    Svg,
}

impl Format {
    /// Every format with its word.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Md, "md"),
        (Self::Csv, "csv"),
        (Self::Json, "json"),
        (Self::Jsonl, "jsonl"),
        (Self::Sql, "sql"),
        (Self::Html, "html"),
        (Self::Svg, "svg"),
    ];

    /// The format of that word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == word).map(|(format, _)| format)
    }
}

/// Writes rows as they come, so that what was measured is there whatever happens next; a page is written at the end. Of
/// JSON's newest row only the closing brace is held back: the last one says if rows are missing.
pub struct Report<'a> {
    format: Format,
    out: &'a mut dyn Write,
    columns: Vec<Column>,
    n_rows: usize,
    rows: Vec<Row>,
}

/// A column of the Markdown table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Column {
    Model,
    Size,
    Params,
    Backend,
    GpuLayers,
    Threads,
    Batch,
    Ubatch,
    Seqs,
    Test,
    Speed,
}

impl Column {
    /// Display name and width; a negative width is aligned to the left.
    fn form(self) -> (&'static str, i32) {
        match self {
            Self::Model => ("model", -30),
            Self::Size => ("size", 10),
            Self::Params => ("params", 10),
            Self::Backend => ("backend", -10),
            Self::GpuLayers => ("ngl", 3),
            Self::Threads => ("threads", 7),
            Self::Batch => ("n_batch", 7),
            Self::Ubatch => ("n_ubatch", 8),
            Self::Seqs => ("np", 4),
            Self::Test => ("test", 15),
            Self::Speed => ("t/s", 20),
        }
    }

    fn of(self, row: &Row) -> String {
        match self {
            Self::Model => row.model.description.model_type.clone(),
            Self::Size => size(row.model.description.size),
            Self::Params => params(row.model.description.n_params),
            Self::Backend => row.model.backends.clone(),
            Self::GpuLayers => row.model.n_gpu_layers.to_string(),
            Self::Threads => row.test.n_threads.to_string(),
            Self::Batch => row.test.n_batch.to_string(),
            Self::Ubatch => row.test.n_ubatch.to_string(),
            Self::Seqs => row.test.n_seqs.to_string(),
            Self::Test => row.test.name(),
            Self::Speed => {
                let ts = row.samples_ts();
                format!("{:.2} ± {:.2}", mean(&ts), sample_sd(&ts))
            }
        }
    }
}

/// Bytes as llama-bench prints them.
pub fn size(bytes: u64) -> String {
    let mib = bytes as f64 / 1024.0 / 1024.0;
    if bytes < 1 << 30 { format!("{mib:.2} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}

/// Parameters as llama-bench prints them.
pub fn params(n: u64) -> String {
    if n < 1_000_000_000 { format!("{:.2} M", n as f64 / 1e6) } else { format!("{:.2} B", n as f64 / 1e9) }
}

fn cell(text: &str, width: i32) -> String {
    let n = width.unsigned_abs() as usize;
    if width < 0 { format!(" {text:<n$} |") } else { format!(" {text:>n$} |") }
}

/// What a defaults' table shows besides: the lists that vary or are not llama-bench's defaults.
fn columns(lists: &Lists, is_gpu: bool) -> Vec<Column> {
    let mut columns = vec![Column::Model, Column::Size, Column::Params, Column::Backend];
    columns.push(if is_gpu { Column::GpuLayers } else { Column::Threads });
    if is_gpu && lists.n_threads.len() > 1 {
        columns.push(Column::Threads);
    }
    for (column, list, default) in [
        (Column::Batch, &lists.n_batch, super::DEFAULT_BATCH),
        (Column::Ubatch, &lists.n_ubatch, super::DEFAULT_UBATCH),
        (Column::Seqs, &lists.n_seqs, 1),
    ] {
        if *list != [default] {
            columns.push(column);
        }
    }
    columns.extend([Column::Test, Column::Speed]);
    columns
}

impl<'a> Report<'a> {
    /// A report of the tests of `lists`, to `out`.
    pub fn new(format: Format, lists: &Lists, is_gpu: bool, out: &'a mut dyn Write) -> Self {
        Self { format, out, columns: columns(lists, is_gpu), n_rows: 0, rows: Vec::new() }
    }

    fn markdown_head(&mut self) -> io::Result<()> {
        let (mut names, mut rules) = (String::from("|"), String::from("|"));
        for column in &self.columns {
            let (name, width) = column.form();
            names += &cell(name, width);
            let dashes = "-".repeat(width.unsigned_abs() as usize - 1);
            let _ = write!(rules, " {dashes}{} |", if width > 0 { ":" } else { "-" });
        }
        writeln!(self.out, "{names}\n{rules}")
    }

    fn head(&mut self, row: &Row) -> io::Result<()> {
        match self.format {
            Format::Md => self.markdown_head(),
            Format::Csv => {
                let names: Vec<&str> = row.fields().iter().map(|f| f.0).collect();
                writeln!(self.out, "{}", names.join(","))
            }
            Format::Json => writeln!(self.out, "["),
            Format::Sql => sql_table(self.out, row),
            Format::Jsonl | Format::Html | Format::Svg => Ok(()),
        }
    }

    /// Writes one row, and flushes it.
    ///
    /// # Errors
    /// Of the writer.
    pub fn row(&mut self, row: &Row) -> io::Result<()> {
        if self.n_rows == 0 {
            self.head(row)?;
        }
        match self.format {
            Format::Md => {
                let cells: String = self.columns.iter().map(|c| cell(&c.of(row), c.form().1)).collect();
                writeln!(self.out, "|{cells}")?;
            }
            Format::Csv => {
                let quoted = |v: &Value| format!("\"{}\"", plain(v).replace('"', "\"\""));
                let cells: Vec<String> = row.fields().iter().map(|f| quoted(&f.1)).collect();
                writeln!(self.out, "{}", cells.join(","))?;
            }
            Format::Json => {
                let before = if self.n_rows > 0 { "\n  },\n" } else { "" };
                write!(self.out, "{before}{}", json(row, "  {\n    ", ",\n    ", ""))?;
            }
            Format::Jsonl => writeln!(self.out, "{}", json(row, "{", ", ", "}"))?,
            Format::Sql => sql_row(self.out, row)?,
            Format::Html | Format::Svg => {}
        }
        self.n_rows += 1;
        self.rows.push(row.clone());
        self.out.flush()
    }

    /// Writes what stands at the end, and gives back the rows. `interrupted` says why rows are missing.
    ///
    /// # Errors
    /// Of the writer.
    pub fn finish(mut self, interrupted: Option<&str>) -> io::Result<Vec<Row>> {
        match self.format {
            Format::Md => self.markdown_foot(interrupted)?,
            Format::Json if self.n_rows == 0 => writeln!(self.out, "[\n]")?,
            Format::Json => {
                if let Some(reason) = interrupted {
                    write!(self.out, ",\n    \"interrupted\": {}", serde_json::Value::from(reason))?;
                }
                writeln!(self.out, "\n  }}\n]")?;
            }
            Format::Html => write!(self.out, "{}", page::engine_page(&self.rows, interrupted))?,
            Format::Svg => write!(self.out, "{}", page::engine_sheet(&self.rows))?,
            Format::Csv | Format::Jsonl | Format::Sql => {}
        }
        self.out.flush()?;
        Ok(self.rows)
    }

    fn markdown_foot(&mut self, interrupted: Option<&str>) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "\nbuild: {BUILD_COMMIT} ({BUILD_NUMBER})\n")?;
        own_table(self.out, &self.rows)?;
        writeln!(self.out, "\n{}", timer_note(&self.rows))?;
        for row in &self.rows {
            if let Some(reason) = &row.invalid {
                writeln!(self.out, "\ninvalid: {}: {reason}", row.test)?;
            }
        }
        if let Some(reason) = interrupted {
            writeln!(self.out, "\nincomplete: {reason}")?;
        }
        Ok(())
    }
}

/// How much of what was measured is the measuring.
pub(super) fn timer_note(rows: &[Row]) -> String {
    let most = rows.iter().map(Row::timer_pct).fold(0.0, f64::max);
    format!("timer: at most {most:.4}% of a repetition")
}

/// What llama-bench does not have: how far each test is from what the machine can do.
fn own_table(out: &mut dyn Write, rows: &[Row]) -> io::Result<()> {
    writeln!(
        out,
        "| {:>15} | {:>8} | {:>7} | {:>8} | {:>10} | {:>10} | {:>10} | {:<18} | {:<5} | {:<16} |",
        "test", "TTFT ms", "GB/s", "Gop/s", "% of limit", "limit", "peak RSS", "kernels", "huge", "tokens"
    )?;
    let dash = |n: usize| "-".repeat(n - 1);
    writeln!(
        out,
        "| {}: | {}: | {}: | {}: | {}: | {}: | {}: | {}- | {}- | {}- |",
        dash(15),
        dash(8),
        dash(7),
        dash(8),
        dash(10),
        dash(10),
        dash(10),
        dash(18),
        dash(5),
        dash(16)
    )?;
    for row in rows {
        let limit = if row.test.n_gen > 0 {
            format!("{:.1} GB/s", row.limits.read_bandwidth / 1e9)
        } else {
            format!("{:.0} Gop/s", row.limits.arithmetic / 1e9)
        };
        let percent = row.roofline_pct().map_or_else(|| "-".to_owned(), |p| format!("{p:.1}"));
        writeln!(
            out,
            "| {:>15} | {:>8.2} | {:>7.2} | {:>8.1} | {percent:>10} | {limit:>10} | {:>10} | {:<18} | {:<5} | {:<16} |",
            row.test.to_string(),
            row.ttft_ms(),
            row.bandwidth_gbps(),
            row.gops(),
            size(row.peak_rss),
            row.model.kernel_class,
            if row.huge_pages { "yes" } else { "no" },
            row.tokens_hash,
        )?;
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => format!("{number:.6}"),
    }
}

/// One object with the samples behind the fields, as llama-bench writes it.
fn json(row: &Row, open: &str, between: &str, close: &str) -> String {
    let mut parts: Vec<String> = row
        .fields()
        .iter()
        .map(|(name, value)| match value {
            Value::Text(text) => format!("\"{name}\": {}", serde_json::Value::from(text.as_str())),
            Value::Bool(flag) => format!("\"{name}\": {flag}"),
            other => format!("\"{name}\": {}", plain(other)),
        })
        .collect();
    let ns: Vec<String> = row.samples_ns.iter().map(u64::to_string).collect();
    let ts: Vec<String> = row.samples_ts().iter().map(|t| format!("{t:.6}")).collect();
    parts.push(format!("\"samples_ns\": [ {} ]", ns.join(", ")));
    parts.push(format!("\"samples_ts\": [ {} ]", ts.join(", ")));
    format!("{open}{}{close}", parts.join(between))
}

fn sql_table(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let lines: Vec<String> = row
        .fields()
        .iter()
        .map(|(name, value)| {
            let kind = match value {
                Value::Text(_) => "TEXT",
                Value::Bool(_) | Value::Int(_) => "INTEGER",
                Value::Float(_) => "REAL",
            };
            format!("  {name} {kind}")
        })
        .collect();
    writeln!(out, "CREATE TABLE IF NOT EXISTS llama_bench (\n{}\n);\n", lines.join(",\n"))
}

fn sql_row(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let fields = row.fields();
    let names: Vec<&str> = fields.iter().map(|f| f.0).collect();
    let values: Vec<String> =
        fields.iter().map(|f| format!("'{}'", plain(&f.1).replace('\'', "''"))).collect();
    writeln!(out, "INSERT INTO llama_bench ({}) VALUES ({});", names.join(", "), values.join(", "))
}
