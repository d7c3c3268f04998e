//! From one row of logits to one token id.
//!
//! In this order, as llama.cpp does it: penalties, `top_k`, `top_p`, `min_p`, `temperature`, one draw. Filters look at
//! the distribution at temperature 1, so that what is kept does not depend on the temperature; each keeps a prefix of
//! the candidates from likely to unlikely (equal ones by id), and the shortest prefix counts. The vocabulary is never
//! sorted as a whole: candidates are selected first.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use super::request::{InvalidParam, Logprob};
use crate::model::TokenId;

/// Hottest temperature: above it every model talks noise.
pub const MAX_TEMPERATURE: f32 = 5.0;
/// Strongest repeat penalty: a logit divided by more is gone anyway.
pub const MAX_REPEAT_PENALTY: f32 = 10.0;
/// Bound of presence and frequency penalties, the one that clients of the `OpenAI` API know.
pub const MAX_ADDED_PENALTY: f32 = 2.0;
/// Longest window of the repeat penalty, in tokens: longer than any context that fits this machine's memory twice over.
pub const MAX_REPEAT_LAST_N: usize = 1 << 20;
/// More entries than any vocabulary has.
pub const MAX_TOP_K: u32 = 1 << 20;

/// Most biases of a request: each is applied at every step.
pub const MAX_LOGIT_BIASES: usize = 300;
/// Strongest bias: from here on a token is ruled out, or all others are.
pub const MAX_LOGIT_BIAS: f32 = 100.0;

/// How many candidates are selected first where only `top_p` limits them; doubled until enough.
const FIRST_CANDIDATES: usize = 64;

/// How tokens are chosen.
#[derive(Clone, PartialEq, Debug)]
pub struct SamplingParams {
    /// 0 takes the likeliest token (greedy); up to [`MAX_TEMPERATURE`].
    pub temperature: f32,
    /// Keeps the `top_k` likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keeps the likeliest that together have this probability, one at least; 1 keeps all.
    pub top_p: f32,
    /// Keeps those at least this fraction as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides the logits (multiplies negative ones) of tokens among the last `repeat_last_n`; 1 is off.
    pub repeat_penalty: f32,
    /// Taken from the logits of tokens that were generated.
    pub presence_penalty: f32,
    /// Taken from the logits of tokens once for every time that they were generated.
    pub frequency_penalty: f32,
    /// How many tokens back, prompt included, `repeat_penalty` looks; 0 is off.
    pub repeat_last_n: usize,
    /// Equal seeds give equal texts; `None` takes a random one.
    pub seed: Option<u64>,
    /// Added to the logits of these tokens before anything else; -100 rules a token out, 100 all others. At most
    /// [`MAX_LOGIT_BIASES`].
    pub logit_bias: Vec<(TokenId, f32)>,
}

impl SamplingParams {
    /// The likeliest token each time, nothing penalised.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::neutral() }
    }

    /// The model's own distribution: temperature 1, every filter and penalty off.
    pub fn neutral() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: 64,
            seed: None,
            logit_bias: Vec::new(),
        }
    }

    /// Refuses values that are not finite or out of range; the error names the field.
    pub fn validate(&self) -> Result<(), InvalidParam> {
        let within = |field, value: f32, low: f32, high: f32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(InvalidParam::new(field, format!("must be a number from {low} to {high}, not {value}")))
        };
        within("temperature", self.temperature, 0.0, MAX_TEMPERATURE)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        // Its inverse is as strong as itself.
        within("repeat_penalty", self.repeat_penalty, 1.0 / MAX_REPEAT_PENALTY, MAX_REPEAT_PENALTY)?;
        within("presence_penalty", self.presence_penalty, -MAX_ADDED_PENALTY, MAX_ADDED_PENALTY)?;
        within("frequency_penalty", self.frequency_penalty, -MAX_ADDED_PENALTY, MAX_ADDED_PENALTY)?;
        if self.top_k > MAX_TOP_K {
            return Err(InvalidParam::new(
                "top_k",
                format!("must be at most {MAX_TOP_K}, not {}", self.top_k),
            ));
        }
        if self.repeat_last_n > MAX_REPEAT_LAST_N {
            let problem = format!("must be at most {MAX_REPEAT_LAST_N}, not {}", self.repeat_last_n);
            return Err(InvalidParam::new("repeat_last_n", problem));
        }
        if self.logit_bias.len() > MAX_LOGIT_BIASES {
            let problem =
                format!("must have at most {MAX_LOGIT_BIASES} entries, not {}", self.logit_bias.len());
            return Err(InvalidParam::new("logit_bias", problem));
        }
        for &(_, bias) in &self.logit_bias {
            within("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)?;
        }
        Ok(())
    }
}

/// What a vocabulary lets be sampled: made once per loaded model.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mask {
    /// Ids from here on have logits but no token (padded rows).
    pub n_vocab: usize,
    /// Never sampled: control tokens, which must not come from a model as text.
    pub banned: Vec<TokenId>,
    /// Never penalised: a penalty that hits the end of every earlier turn would keep a model from ending this one.
    pub end_of_generation: Vec<TokenId>,
}

/// A row of logits from which nothing can be chosen (all NaN, or all banned).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the model's logits are not numbers")]
pub struct NoCandidate;

/// Chooses the tokens of one generation.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    /// The last `repeat_last_n` tokens, and how often each is among them.
    window: VecDeque<TokenId>,
    n_in_window: HashMap<TokenId, u32>,
    n_generated: HashMap<TokenId, u32>,
    candidates: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: TokenId,
    logit: f32,
}

/// Likely ones first, equal ones by id.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that sorting asks for")]
fn by_likelihood(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

impl Sampler {
    /// A sampler that has seen `prompt`. The parameters have been validated.
    pub fn new(params: SamplingParams, prompt: &[TokenId]) -> Self {
        let seed = params.seed.unwrap_or_else(random_seed);
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut sampler = Self {
            params,
            rng,
            window: VecDeque::new(),
            n_in_window: HashMap::new(),
            n_generated: HashMap::new(),
            candidates: Vec::new(),
        };
        let n = sampler.params.repeat_last_n.min(prompt.len());
        for &id in &prompt[prompt.len() - n..] {
            sampler.remember(id);
        }
        sampler
    }

    /// Chooses one id, changing `logits` on the way, and remembers it for the penalties.
    pub fn sample(&mut self, logits: &mut [f32], mask: &Mask) -> Result<TokenId, NoCandidate> {
        let n_vocab = logits.len().min(mask.n_vocab);
        let logits = &mut logits[..n_vocab];
        for &(id, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = if bias <= -MAX_LOGIT_BIAS { f32::NEG_INFINITY } else { *logit + bias };
            }
        }
        self.penalise(logits, mask);
        for &id in &mask.banned {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let best = likeliest(logits).ok_or(NoCandidate)?;
        let id = if self.params.temperature == 0.0 { best.id } else { self.draw(logits, best) };
        self.remember(id);
        *self.n_generated.entry(id).or_default() += 1;
        Ok(id)
    }

    fn remember(&mut self, id: TokenId) {
        if self.params.repeat_last_n == 0 {
            return;
        }
        if self.window.len() == self.params.repeat_last_n
            && let Some(oldest) = self.window.pop_front()
            && let Some(n) = self.n_in_window.get_mut(&oldest)
        {
            *n -= 1;
            if *n == 0 {
                self.n_in_window.remove(&oldest);
            }
        }
        self.window.push_back(id);
        *self.n_in_window.entry(id).or_default() += 1;
    }

    fn penalise(&self, logits: &mut [f32], mask: &Mask) {
        let p = &self.params;
        let spared = |id: &TokenId| mask.end_of_generation.contains(id);
        for id in self.n_in_window.keys().filter(|id| !spared(id)) {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = if *logit > 0.0 { *logit / p.repeat_penalty } else { *logit * p.repeat_penalty };
            }
        }
        if p.presence_penalty == 0.0 && p.frequency_penalty == 0.0 {
            return;
        }
        for (id, &n) in self.n_generated.iter().filter(|(id, _)| !spared(id)) {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit -= p.presence_penalty + p.frequency_penalty * n as f32;
            }
        }
    }

    fn draw(&mut self, logits: &[f32], best: Candidate) -> TokenId {
        select_candidates(&self.params, logits, best, &mut self.candidates);
        let weight =
            |c: &Candidate| (f64::from(c.logit - best.logit) / f64::from(self.params.temperature)).exp();
        let total: f64 = self.candidates.iter().map(weight).sum();
        // 53 random bits: a uniform number in [0, 1).
        let mut left = (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        for c in &self.candidates {
            left -= weight(c);
            if left < 0.0 {
                return c.id;
            }
        }
        // Rounding may leave a crumb behind the last candidate.
        best.id
    }
}

/// The largest logit that is a number, the smallest id of equals; `None` when there is none.
fn likeliest(logits: &[f32]) -> Option<Candidate> {
    let mut best: Option<Candidate> = None;
    for (run, first) in runs(logits) {
        if best.is_some_and(|b| !is_any_above(run, b.logit)) {
            continue;
        }
        for (id, &logit) in (first..).zip(run) {
            if logit.is_finite() && best.is_none_or(|b| logit > b.logit) {
                best = Some(Candidate { id, logit });
            }
        }
    }
    best
}

/// Logits in runs short enough to be looked through at once, each with its first id.
fn runs(logits: &[f32]) -> impl Iterator<Item = (&[f32], TokenId)> {
    const RUN: usize = 64;
    logits.chunks(RUN).enumerate().map(|(i, run)| (run, (i * RUN) as TokenId))
}

/// Whether any is larger. Counted, because a compiler compares many at a time where all are looked at, and of a
/// vocabulary's tokens all but a few are unlikely.
fn is_any_above(run: &[f32], logit: f32) -> bool {
    run.iter().map(|&x| u32::from(x > logit)).sum::<u32>() > 0
}

/// Fills `kept` with what the filters leave; `best` is always among it.
fn select_candidates(params: &SamplingParams, logits: &[f32], best: Candidate, kept: &mut Vec<Candidate>) {
    let top_k = if params.top_k == 0 { logits.len() } else { params.top_k as usize };
    select_top_k(logits, top_k, kept);
    let probability = |c: &Candidate| f64::from(c.logit - best.logit).exp();
    let n_top_p = if params.top_p < 1.0 {
        let total: f64 = kept.iter().map(probability).sum();
        n_with_mass(kept, f64::from(params.top_p) * total, probability)
    } else {
        kept.len()
    };
    kept.truncate(n_top_p);
    if params.min_p > 0.0 {
        kept.retain(|c| probability(c) >= f64::from(params.min_p));
    }
}

/// Fills `kept` with the `top_k` likeliest, in one pass: once that many are known, most of a vocabulary is below the least
/// of them and costs one comparison.
fn select_top_k(logits: &[f32], top_k: usize, kept: &mut Vec<Candidate>) {
    let n_buffered = top_k.saturating_mul(4);
    let mut above = f32::NEG_INFINITY;
    kept.clear();
    for (run, first) in runs(logits) {
        if !is_any_above(run, above) {
            continue;
        }
        for (id, &logit) in (first..).zip(run) {
            // An equal one that comes later has the larger id, and loses.
            if logit > above && logit.is_finite() {
                kept.push(Candidate { id, logit });
                if kept.len() == n_buffered {
                    kept.select_nth_unstable_by(top_k - 1, by_likelihood);
                    above = kept[top_k - 1].logit;
                    kept.truncate(top_k);
                }
            }
        }
    }
    if top_k < logits.len() {
        // The order decides which candidate a draw hits, so it must not hang on the selection's internals.
        kept.sort_unstable_by(by_likelihood);
        kept.truncate(top_k);
    }
}

/// How many of the likeliest candidates have `mass` together, one at least; these then stand first, in order.
fn n_with_mass(candidates: &mut [Candidate], mass: f64, probability: impl Fn(&Candidate) -> f64) -> usize {
    let mut sum = 0.0;
    let mut n_sorted = 0;
    let mut n_next = FIRST_CANDIDATES;
    while n_sorted < candidates.len() {
        let rest = &mut candidates[n_sorted..];
        let n_new = n_next.min(rest.len());
        if n_new < rest.len() {
            rest.select_nth_unstable_by(n_new - 1, by_likelihood);
        }
        rest[..n_new].sort_unstable_by(by_likelihood);
        for (i, c) in rest[..n_new].iter().enumerate() {
            sum += probability(c);
            if sum >= mass {
                return n_sorted + i + 1;
            }
        }
        n_sorted += n_new;
        n_next *= 2;
    }
    candidates.len()
}

/// How likely the model held `id` and the `n_top` likeliest, as natural logarithms; of untouched logits.
pub(super) fn logprobs(logits: &[f32], id: TokenId, n_top: usize) -> Logprob {
    let Some(best) = likeliest(logits) else { return Logprob { id, logprob: f32::MIN, top: Vec::new() } };
    let total: f64 = logits.iter().filter(|l| l.is_finite()).map(|&l| f64::from(l - best.logit).exp()).sum();
    let log_total = total.ln() as f32 + best.logit;
    // What has no probability at all is told as a very small one, because JSON has no infinity.
    let of = |logit: f32| if logit.is_finite() { logit - log_total } else { f32::MIN };
    let mut top = Vec::new();
    if n_top > 0 {
        select_top_k(logits, n_top, &mut top);
        top.sort_unstable_by(by_likelihood);
        top.truncate(n_top);
    }
    let logprob = logits.get(id as usize).map_or(f32::MIN, |&l| of(l));
    Logprob { id, logprob, top: top.iter().map(|c| (c.id, of(c.logit))).collect() }
}

/// A seed that nobody can foretell.
pub fn random_seed() -> u64 {
    // Without the system's randomness the clock still makes two answers differ.
    getrandom::u64().unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |d| d.as_nanos() as u64)
    })
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
