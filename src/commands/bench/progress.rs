//! Which test runs and how long the rest takes, on stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Instant;

use mommygpt::bench::plan::Test;
use mommygpt::bench::row::Row;
use mommygpt::bench::runner::{Options, Step};

/// The line that says where the measuring stands.
pub(super) struct Progress {
    is_terminal: bool,
    is_wanted: bool,
    n_tests: usize,
    i_test: usize,
    runs_per_test: usize,
    started: Instant,
    name: String,
}

impl Progress {
    /// Of `n_tests` tests. On a terminal the line is shown and overwritten; elsewhere one line a test, if `wanted`.
    pub(super) fn new(n_tests: usize, options: &Options, wanted: bool) -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            is_wanted: wanted,
            n_tests,
            i_test: 0,
            runs_per_test: options.repetitions + usize::from(options.warm_up),
            started: Instant::now(),
            name: String::new(),
        }
    }

    pub(super) fn start(&mut self, model: &str, test: &Test) {
        self.i_test += 1;
        self.name = format!("{model} {test}");
        if self.is_wanted && !self.is_terminal {
            let _ = writeln!(
                io::stderr(),
                "mommygpt: test {}/{}: {}, {}",
                self.i_test,
                self.n_tests,
                self.name,
                self.left(0)
            );
        }
    }

    pub(super) fn step(&mut self, step: &Step<'_>) {
        if !self.is_terminal {
            return;
        }
        let (what, done) = match step.n_repetitions {
            0 => ("warm-up".to_owned(), 0),
            n => {
                let warm_up = self.runs_per_test - n;
                (format!("run {}/{n}", step.repetition + 1), step.repetition + warm_up)
            }
        };
        let line =
            format!("test {}/{}: {}: {what}, {}", self.i_test, self.n_tests, self.name, self.left(done));
        let _ = write!(io::stderr(), "\r\x1b[K{line}");
    }

    pub(super) fn end(&mut self, row: &Row) {
        if self.is_wanted && !self.is_terminal {
            let ts = row.samples_ts();
            let _ = writeln!(
                io::stderr(),
                "mommygpt: test {}/{}: {} t/s",
                self.i_test,
                self.n_tests,
                mean_of(&ts)
            );
        }
        self.clear();
    }

    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    /// The time that the rest takes if it goes on as so far; tests are taken for equally long.
    fn left(&self, runs_done: usize) -> String {
        let done = (self.i_test - 1) * self.runs_per_test + runs_done;
        if done == 0 {
            return "time left not known yet".into();
        }
        let all = self.n_tests * self.runs_per_test;
        let seconds = self.started.elapsed().as_secs_f64() / done as f64 * (all - done.min(all)) as f64;
        if seconds < 90.0 {
            format!("about {seconds:.0} s left")
        } else {
            format!("about {:.0} min left", seconds / 60.0)
        }
    }
}

fn mean_of(values: &[f64]) -> String {
    format!("{:.2}", mommygpt::bench::stats::mean(values))
}
