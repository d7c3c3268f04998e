//! What a load gave, in vLLM's words (`benchmark_serving`): its report and its JSON keys, ours behind.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::super::stats::{mean, percentile_of_sorted, sample_sd};
use super::{Arrival, Exchange, Outcome};

/// The percentiles that are reported.
pub const PERCENTILES: [u32; 3] = [50, 90, 99];

/// What the words of a report mean; they are measured in other ways elsewhere.
pub const DEFINITIONS: &str = "TTFT: send to first text. TPOT: (last - first) / (tokens - 1). ITL: between tokens. E2EL: send \
                               to last token. All in milliseconds.";

/// Limits that a request must keep to count as good.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Goodput {
    /// Milliseconds to the first token.
    pub ttft_ms: Option<f64>,
    /// Milliseconds per token behind it.
    pub tpot_ms: Option<f64>,
    /// Milliseconds to the last token.
    pub e2el_ms: Option<f64>,
}

impl Goodput {
    /// Reads `ttft:200`, `tpot:50` and `e2el:2000`.
    ///
    /// # Errors
    /// What is none of them.
    pub fn parse(items: &[String]) -> Result<Self, String> {
        let mut goodput = Self::default();
        for item in items {
            let parsed = item.split_once(':').and_then(|(name, ms)| Some((name, ms.parse::<f64>().ok()?)));
            let (name, ms) = parsed
                .filter(|(_, ms)| ms.is_finite() && *ms > 0.0)
                .ok_or_else(|| format!("--goodput {item}: give NAME:MILLISECONDS such as ttft:200"))?;
            let place = match name {
                "ttft" => &mut goodput.ttft_ms,
                "tpot" => &mut goodput.tpot_ms,
                "e2el" => &mut goodput.e2el_ms,
                _ => return Err(format!("--goodput {item}: NAME must be one of ttft, tpot, e2el")),
            };
            *place = Some(ms);
        }
        Ok(goodput)
    }

    /// Whether anything is asked.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    fn is_kept_by(&self, exchange: &Exchange) -> bool {
        let within = |limit: Option<f64>, value: Option<f64>| match (limit, value) {
            (Some(limit), Some(value)) => value <= limit,
            _ => true,
        };
        within(self.ttft_ms, exchange.ttft_ms)
            && within(self.tpot_ms, exchange.tpot_ms())
            && within(self.e2el_ms, Some(exchange.e2e_ms))
    }
}

/// Mean, spread and percentiles of one kind of time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Times {
    /// How many there are.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation.
    pub sd: f64,
    /// Of [`PERCENTILES`].
    pub percentiles: [f64; 3],
    /// In ascending order, for plots.
    pub sorted: Vec<f64>,
}

impl Times {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let percentiles =
            PERCENTILES.map(|p| percentile_of_sorted(&sorted, f64::from(p)).unwrap_or_default());
        Self { n: sorted.len(), mean: mean(&sorted), sd: sample_sd(&sorted), percentiles, sorted }
    }
}

/// Everything that is reported of one load.
#[derive(Clone, Debug)]
pub struct Summary {
    /// When requests were sent.
    pub arrival: Arrival,
    /// Requests that were answered.
    pub n_completed: usize,
    /// Requests that failed.
    pub n_failed: usize,
    /// Requests that were never sent.
    pub n_unsent: usize,
    /// What the first failure was.
    pub first_error: Option<String>,
    /// Seconds from the first sending to the last token.
    pub duration_s: f64,
    /// Tokens of all prompts that were answered.
    pub n_input: usize,
    /// Tokens of all answers.
    pub n_output: usize,
    /// Answers with fewer tokens than `--ignore-eos` asked for; `None` without it.
    pub n_short: Option<usize>,
    /// Requests a second that kept the limits of `--goodput`; `None` where none were given.
    pub goodput: Option<f64>,
    /// Milliseconds to the first token.
    pub ttft: Times,
    /// Milliseconds per token behind it.
    pub tpot: Times,
    /// Milliseconds between tokens.
    pub itl: Times,
    /// Milliseconds to the last token.
    pub e2el: Times,
    /// The server's own milliseconds for prompts; empty where it does not tell.
    pub server_prompt_ms: Times,
    /// The server's own milliseconds per generated token.
    pub server_tpot: Times,
    /// Prompt tokens that the server took from its cache.
    pub n_cached: f64,
}

impl Summary {
    /// Sums up an outcome.
    pub fn of(outcome: &Outcome, goodput: &Goodput) -> Self {
        let good: Vec<&Exchange> = outcome.exchanges.iter().filter(|e| e.error.is_none()).collect();
        let failed: Vec<&Exchange> = outcome.exchanges.iter().filter(|e| e.error.is_some()).collect();
        let servers = || good.iter().filter_map(|e| e.server);
        let n_kept = good.iter().filter(|e| goodput.is_kept_by(e)).count();
        Self {
            arrival: outcome.arrival,
            n_completed: good.len(),
            n_failed: failed.len(),
            n_unsent: outcome.n_planned - outcome.exchanges.len(),
            first_error: failed.first().and_then(|e| e.error.clone()),
            duration_s: outcome.duration_s,
            n_input: good.iter().map(|e| e.n_input).sum(),
            n_output: good.iter().map(|e| e.n_output).sum(),
            n_short: outcome.fixed_length.map(|n| good.iter().filter(|e| e.n_output < n).count()),
            goodput: goodput.is_set().then(|| per_second(n_kept as f64, outcome.duration_s)),
            ttft: Times::of(good.iter().filter_map(|e| e.ttft_ms)),
            tpot: Times::of(good.iter().filter_map(|e| e.tpot_ms())),
            itl: Times::of(good.iter().flat_map(|e| e.gaps_ms.iter().copied())),
            e2el: Times::of(good.iter().map(|e| e.e2e_ms)),
            server_prompt_ms: Times::of(servers().map(|s| s.prompt_ms)),
            server_tpot: Times::of(
                servers().filter(|s| s.predicted_n > 0.0).map(|s| s.predicted_ms / s.predicted_n),
            ),
            n_cached: servers().map(|s| s.cache_n).sum(),
        }
    }

    /// Answered requests a second.
    pub fn request_throughput(&self) -> f64 {
        per_second(self.n_completed as f64, self.duration_s)
    }

    /// Generated tokens a second, of all requests together.
    pub fn output_throughput(&self) -> f64 {
        per_second(self.n_output as f64, self.duration_s)
    }

    /// The load in a few words: `4 at once`, `2.0 a second`.
    pub fn load(&self) -> String {
        match self.arrival {
            Arrival::Closed { concurrency } => format!("{concurrency} at once"),
            Arrival::Open { rate, max_concurrency: None } => format!("{rate} a second"),
            Arrival::Open { rate, max_concurrency: Some(n) } => {
                format!("{rate} a second, at most {n} at once")
            }
        }
    }

    /// What makes the result incomplete.
    pub fn problem(&self) -> Option<String> {
        let failed = self.first_error.as_ref().map(|error| {
            format!(
                "{} of {} requests failed, the first with: {error}",
                self.n_failed,
                self.n_failed + self.n_completed
            )
        });
        let unsent = (self.n_unsent > 0).then(|| format!("{} requests were not sent", self.n_unsent));
        match (failed, unsent) {
            (Some(failed), Some(unsent)) => Some(format!("{failed}; {unsent}")),
            (failed, unsent) => failed.or(unsent),
        }
    }

    /// One object under vLLM's keys, ours behind.
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| {
            map.insert(key.to_owned(), value);
        };
        let (rate, concurrency) = match self.arrival {
            Arrival::Closed { concurrency } => (json!("inf"), json!(concurrency)),
            Arrival::Open { rate, max_concurrency } => (json!(rate), json!(max_concurrency)),
        };
        put("request_rate", rate);
        put("max_concurrency", concurrency);
        put("duration", json!(self.duration_s));
        put("completed", json!(self.n_completed));
        put("failed", json!(self.n_failed));
        put("total_input_tokens", json!(self.n_input));
        put("total_output_tokens", json!(self.n_output));
        put("short_answers", json!(self.n_short));
        put("request_throughput", json!(self.request_throughput()));
        put("request_goodput", json!(self.goodput));
        put("output_throughput", json!(self.output_throughput()));
        let total = per_second((self.n_input + self.n_output) as f64, self.duration_s);
        put("total_token_throughput", json!(total));
        for (name, times) in
            [("ttft", &self.ttft), ("tpot", &self.tpot), ("itl", &self.itl), ("e2el", &self.e2el)]
        {
            put(&format!("mean_{name}_ms"), json!(times.mean));
            put(&format!("median_{name}_ms"), json!(times.percentiles[0]));
            put(&format!("std_{name}_ms"), json!(times.sd));
            put(&format!("p90_{name}_ms"), json!(times.percentiles[1]));
            put(&format!("p99_{name}_ms"), json!(times.percentiles[2]));
        }
        let told = self.server_prompt_ms.n > 0;
        put("server_mean_prompt_ms", json!(told.then_some(self.server_prompt_ms.mean)));
        put("server_mean_tpot_ms", json!(told.then_some(self.server_tpot.mean)));
        put("server_cached_tokens", json!(told.then_some(self.n_cached)));
        put("problem", json!(self.problem()));
        // For a comparison with another run.
        put("e2el_ms", json!(self.e2el.sorted));
        put("ttft_ms", json!(self.ttft.sorted));
        Value::Object(map)
    }

    /// vLLM's report.
    ///
    /// # Errors
    /// Of the writer.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", centred(" Serving Benchmark Result ", '='))?;
        let mut line = |name: &str, value: String| writeln!(out, "{name:<40} {value:<10}");
        line("Load:", self.load())?;
        line("Successful requests:", self.n_completed.to_string())?;
        line("Failed requests:", self.n_failed.to_string())?;
        line("Benchmark duration (s):", format!("{:.2}", self.duration_s))?;
        line("Total input tokens:", self.n_input.to_string())?;
        line("Total generated tokens:", self.n_output.to_string())?;
        if let Some(n_short) = self.n_short {
            line("Answers shorter than asked:", n_short.to_string())?;
        }
        line("Request throughput (req/s):", format!("{:.2}", self.request_throughput()))?;
        if let Some(goodput) = self.goodput {
            line("Request goodput (req/s):", format!("{goodput:.2}"))?;
        }
        line("Output token throughput (tok/s):", format!("{:.2}", self.output_throughput()))?;
        let total = per_second((self.n_input + self.n_output) as f64, self.duration_s);
        line("Total Token throughput (tok/s):", format!("{total:.2}"))?;
        for (title, name, times) in [
            ("Time to First Token", "TTFT", &self.ttft),
            ("Time per Output Token (excl. 1st token)", "TPOT", &self.tpot),
            ("Inter-token Latency", "ITL", &self.itl),
            ("End-to-end Latency", "E2EL", &self.e2el),
        ] {
            section(out, title, name, times)?;
        }
        if self.server_prompt_ms.n > 0 {
            writeln!(out, "{}", centred("What the server says of itself", '-'))?;
            let mut line = |name: &str, value: f64| writeln!(out, "{name:<40} {value:<10.2}");
            line("Mean prompt time (ms):", self.server_prompt_ms.mean)?;
            line("P99 prompt time (ms):", self.server_prompt_ms.percentiles[2])?;
            line("Mean time per generated token (ms):", self.server_tpot.mean)?;
            line("Prompt tokens from its cache:", self.n_cached)?;
        }
        writeln!(out, "{}", "=".repeat(WIDTH))?;
        if let Some(problem) = self.problem() {
            writeln!(out, "incomplete: {problem}")?;
        }
        writeln!(out)
    }
}

/// Columns of vLLM's report.
const WIDTH: usize = 50;

fn centred(title: &str, rule: char) -> String {
    let n = WIDTH.saturating_sub(title.chars().count());
    let rules = |n: usize| rule.to_string().repeat(n);
    format!("{}{title}{}", rules(n / 2), rules(n - n / 2))
}

fn section(out: &mut dyn Write, title: &str, name: &str, times: &Times) -> io::Result<()> {
    writeln!(out, "{}", centred(title, '-'))?;
    let [median, p90, p99] = times.percentiles;
    for (word, value) in [("Mean", times.mean), ("Median", median), ("P90", p90), ("P99", p99)] {
        writeln!(out, "{:<40} {value:<10.2}", format!("{word} {name} (ms):"))?;
    }
    Ok(())
}

fn per_second(n: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { n / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(ttft: f64, e2e: f64, n_output: usize) -> Exchange {
        Exchange { ttft_ms: Some(ttft), e2e_ms: e2e, n_input: 10, n_output, ..Exchange::default() }
    }

    /// Two answers of 11 tokens in 2 seconds, one failure; every figure by hand.
    #[test]
    fn figures_are_vllms() {
        let failed = Exchange { error: Some("broken".into()), ..Exchange::default() };
        let outcome = Outcome {
            arrival: Arrival::Closed { concurrency: 2 },
            exchanges: vec![exchange(100.0, 600.0, 11), exchange(300.0, 1300.0, 11), failed],
            duration_s: 2.0,
            n_planned: 4,
            fixed_length: Some(12),
            interrupted: true,
        };
        let goodput = Goodput::parse(&["ttft:200".into(), "tpot:60".into()]).unwrap();
        let summary = Summary::of(&outcome, &goodput);
        assert_eq!((summary.n_completed, summary.n_failed, summary.n_unsent), (2, 1, 1));
        assert_eq!(summary.n_short, Some(2));
        let json = summary.json();
        for (key, value) in [
            ("request_throughput", 1.0),
            ("output_throughput", 11.0),
            ("total_token_throughput", 21.0),
            ("request_goodput", 0.5),
            ("mean_ttft_ms", 200.0),
            ("median_ttft_ms", 200.0),
            ("p99_ttft_ms", 298.0),
            ("mean_tpot_ms", 75.0),
            ("p90_e2el_ms", 1230.0),
        ] {
            assert!((json[key].as_f64().unwrap() - value).abs() < 1e-9, "{key}: {}", json[key]);
        }
        let problem = summary.problem().unwrap();
        assert_eq!(problem, "1 of 3 requests failed, the first with: broken; 1 requests were not sent");
        let mut printed = Vec::new();
        summary.print(&mut printed).unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.contains("Mean TTFT (ms):                          200.00"), "{printed}");
        assert!(printed.contains("P99 TTFT (ms):                           298.00"), "{printed}");
        assert!(printed.contains("incomplete: 1 of 3"), "{printed}");
    }

    #[test]
    fn goodput_is_read_or_refused() {
        let both = Goodput::parse(&["ttft:200".into(), "e2el:2000".into()]).unwrap();
        assert_eq!((both.ttft_ms, both.tpot_ms, both.e2el_ms), (Some(200.0), None, Some(2000.0)));
        for bad in ["ttft", "ttft:x", "ttft:-1", "itl:20", ":5"] {
            assert!(Goodput::parse(&[bad.into()]).is_err(), "{bad}");
        }
    }
}
