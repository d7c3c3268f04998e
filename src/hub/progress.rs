//! How far a download is: a bar on a terminal, a line now and then anywhere else.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines in a log: one for each tenth, and none sooner than this after the last.
const MIN_LINE_INTERVAL: Duration = Duration::from_secs(1);
const TENTHS: u64 = 10;
const TEMPLATE: &str = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";

/// One file's progress on stderr.
pub(super) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Anywhere else.
    Lines(Lines),
}

pub(super) struct Lines {
    name: String,
    total: u64,
    done: u64,
    /// What was there before this run; it says nothing about the rate.
    resumed_at: u64,
    started: Instant,
    last_line: Instant,
    last_tenth: u64,
}

impl Progress {
    /// Of `name`, of which `done` bytes of `total` are there already.
    pub(super) fn start(name: &str, done: u64, total: u64) -> Self {
        if io::stderr().is_terminal() {
            let style =
                ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar =
                ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style);
            bar.set_message(name.to_owned());
            bar.set_position(done);
            bar.reset_eta();
            return Self::Bar(bar);
        }
        let now = Instant::now();
        let lines = Lines {
            name: name.to_owned(),
            total,
            done,
            resumed_at: done,
            started: now,
            last_line: now,
            last_tenth: done * TENTHS / total.max(1),
        };
        lines.say(&if done > 0 {
            format!("{} of {} were here already", mib(done), mib(total))
        } else {
            mib(total)
        });
        Self::Lines(lines)
    }

    /// So many bytes are there now.
    pub(super) fn set(&mut self, done: u64) {
        match self {
            Self::Bar(bar) => bar.set_position(done),
            Self::Lines(lines) => lines.set(done),
        }
    }

    /// Something that the person should know, on a line of its own.
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Bar(bar) => bar.println(text),
            Self::Lines(lines) => lines.say(text),
        }
    }

    /// The file is there.
    pub(super) fn finish(&self) {
        match self {
            Self::Bar(bar) => bar.finish(),
            Self::Lines(lines) => {
                let took = lines.started.elapsed();
                lines.say(&format!("{} in {:.1} s", mib(lines.total), took.as_secs_f64()));
            }
        }
    }
}

impl Lines {
    fn say(&self, text: &str) {
        say(&format!("{}: {text}", self.name));
    }

    fn set(&mut self, done: u64) {
        self.done = done;
        let tenth = done * TENTHS / self.total.max(1);
        if tenth <= self.last_tenth || tenth == TENTHS || self.last_line.elapsed() < MIN_LINE_INTERVAL {
            return;
        }
        (self.last_tenth, self.last_line) = (tenth, Instant::now());
        let rate = done.saturating_sub(self.resumed_at) as f64 / self.started.elapsed().as_secs_f64();
        let left = self.total.saturating_sub(done) as f64 / rate.max(1.0);
        self.say(&format!(
            "{} % of {}, {}/s, {left:.0} s left",
            tenth * (100 / TENTHS),
            mib(self.total),
            mib(rate as u64)
        ));
    }
}

/// A line on stderr, before there is any progress.
pub(super) fn say(text: &str) {
    // A log that cannot be written to must not stop the download.
    let _ = writeln!(io::stderr(), "{text}");
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
