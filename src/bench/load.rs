//! A load generator for servers that speak OpenAI's chat shape: this one, llama.cpp's, vLLM and others.
//!
//! Closed loop: a number of clients, each of which sends its next request when the last is answered. Open loop: requests
//! arrive at a rate, whatever the server does with them, with gaps of a Poisson process drawn from a seed.
//!
//! Definitions, as vLLM reports them: TTFT = send to first text (not to the first chunk, and the connection is open by
//! then); ITL = gaps between tokens, a chunk of several tokens being shared out among them; TPOT = (last - first) /
//! (tokens - 1); E2EL = send to last token.

pub mod prompts;
mod request;
mod stream;
pub mod summary;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use prompts::Conversation;
pub use request::{Target, Turn};

/// Why a load could not be put on a server at all.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// An address that cannot be used: wrong usage.
    #[error("--url {url}: {problem}")]
    BadUrl {
        /// As typed.
        url: String,
        /// What is wrong with it, and what would do.
        problem: String,
    },
    /// Nobody answers there.
    #[error("{url}: {problem}; is a server running there?")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system said.
        problem: String,
    },
    /// Somebody answers, and refuses.
    #[error("{url}: {problem}")]
    Refused {
        /// Where.
        url: String,
        /// Status and message.
        problem: String,
    },
}

/// When requests are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Arrival {
    /// So many clients, each with one request at a time.
    Closed {
        /// Clients.
        concurrency: usize,
    },
    /// So many conversations a second on average, at most `max_concurrency` of them at once.
    Open {
        /// Per second.
        rate: f64,
        /// Those beyond it wait, and their waiting does not count.
        max_concurrency: Option<usize>,
    },
}

/// What one measurement sends.
#[derive(Clone, Debug)]
pub struct Plan {
    /// When.
    pub arrival: Arrival,
    /// What.
    pub conversations: Vec<Conversation>,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Ask the server to go on behind an end token, where it can.
    pub ignore_eos: bool,
    /// Of the gaps between arrivals.
    pub seed: u64,
    /// After so long a request has failed.
    pub timeout: Duration,
}

/// What a server says of its own time in llama.cpp's `timings`.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ServerTimings {
    /// Prompt tokens taken from its cache.
    pub cache_n: f64,
    /// Prompt tokens evaluated, and the milliseconds it took.
    pub prompt_n: f64,
    /// Milliseconds of it.
    pub prompt_ms: f64,
    /// Tokens generated.
    pub predicted_n: f64,
    /// Milliseconds of it.
    pub predicted_ms: f64,
}

/// One request and what became of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Exchange {
    /// From the start of the measurement, in seconds.
    pub sent_s: f64,
    /// Milliseconds to the first text; `None` where there was none.
    pub ttft_ms: Option<f64>,
    /// Milliseconds between tokens.
    pub gaps_ms: Vec<f64>,
    /// Milliseconds to the last token.
    pub e2e_ms: f64,
    /// Tokens of the prompt, as the server counts them.
    pub n_input: usize,
    /// Tokens of the answer, as the server counts them, else its chunks.
    pub n_output: usize,
    /// The server's own figures.
    pub server: Option<ServerTimings>,
    /// Why it failed; what came until then is kept.
    pub error: Option<String>,
    /// The answer's text.
    pub text: String,
}

impl Exchange {
    /// Milliseconds per token behind the first; `None` where there are fewer than two.
    pub fn tpot_ms(&self) -> Option<f64> {
        let first = self.ttft_ms?;
        (self.n_output > 1).then(|| (self.e2e_ms - first) / (self.n_output - 1) as f64)
    }
}

/// What was measured under one plan.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When requests were sent.
    pub arrival: Arrival,
    /// Every request, in the order of their ends.
    pub exchanges: Vec<Exchange>,
    /// Seconds from the first sending to the last end.
    pub duration_s: f64,
    /// Requests that were planned.
    pub n_planned: usize,
    /// Tokens that every answer was to have, where the server was asked to go on behind the model's end.
    pub fixed_length: Option<usize>,
    /// It was ended before all were sent.
    pub interrupted: bool,
}

/// What every client shares.
struct Shared {
    target: Target,
    plan: Plan,
    start: Instant,
    waiting: Mutex<VecDeque<Conversation>>,
    done: Mutex<Vec<Exchange>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the load on the server until all is answered, or `stop` is ready. `progress` hears how many are done.
pub async fn run(
    target: &Target,
    plan: Plan,
    stop: impl Future<Output = ()>,
    progress: impl Fn(usize, usize),
) -> Outcome {
    let (arrival, n_planned) = (plan.arrival, plan.conversations.iter().map(|c| c.user.len()).sum());
    let fixed_length = plan.ignore_eos.then_some(plan.max_tokens);
    let shared = Arc::new(Shared {
        target: target.clone(),
        waiting: Mutex::new(plan.conversations.iter().cloned().collect()),
        plan,
        start: Instant::now(),
        done: Mutex::new(Vec::new()),
    });
    let mut clients = JoinSet::new();
    match arrival {
        Arrival::Closed { concurrency } => {
            for _ in 0..concurrency {
                clients.spawn(client(Arc::clone(&shared)));
            }
        }
        Arrival::Open { rate, max_concurrency } => {
            clients.spawn(arrivals(Arc::clone(&shared), rate, max_concurrency));
        }
    }
    let mut stop = std::pin::pin!(stop);
    let mut interrupted = false;
    let mut tick = tokio::time::interval(PROGRESS_PERIOD);
    loop {
        tokio::select! {
            ended = clients.join_next() => if ended.is_none() { break },
            _ = tick.tick() => {}
            () = &mut stop => {
                interrupted = true;
                break;
            }
        }
        progress(lock(&shared.done).len(), n_planned);
    }
    clients.shutdown().await;
    let exchanges = std::mem::take(&mut *lock(&shared.done));
    let end = exchanges.iter().map(|e| e.sent_s + e.e2e_ms / 1e3).fold(0.0, f64::max);
    let begin = exchanges.iter().map(|e| e.sent_s).fold(f64::INFINITY, f64::min);
    let duration_s = if exchanges.is_empty() { 0.0 } else { end - begin };
    Outcome { arrival, exchanges, duration_s, n_planned, fixed_length, interrupted }
}

/// How often progress is told: often enough to look alive.
const PROGRESS_PERIOD: Duration = Duration::from_millis(250);

/// Whether the server takes llama.cpp's `ignore_eos`: it is asked for one token with it. A server that overlooks what it
/// does not know says yes, and shows by short answers that it did not mean it.
pub async fn takes_ignore_eos(target: &Target, plan: &Plan) -> bool {
    let first =
        |c: &Conversation| Conversation { user: c.user.iter().take(1).cloned().collect(), ..c.clone() };
    let probe = Plan {
        arrival: Arrival::Closed { concurrency: 1 },
        conversations: plan.conversations.first().map(first).into_iter().collect(),
        max_tokens: 1,
        ignore_eos: true,
        ..plan.clone()
    };
    run(target, probe, std::future::pending(), |_, _| {}).await.exchanges.iter().all(|e| e.error.is_none())
}

/// A client of the closed loop.
async fn client(shared: Arc<Shared>) {
    loop {
        let next = lock(&shared.waiting).pop_front();
        let Some(next) = next else { return };
        converse(&shared, next).await;
    }
}

/// Starts conversations at their times.
async fn arrivals(shared: Arc<Shared>, rate: f64, max_concurrency: Option<usize>) {
    let places = max_concurrency.map(|n| Arc::new(Semaphore::new(n)));
    let mut running = JoinSet::new();
    let mut at = 0.0;
    for gap in poisson_gaps(shared.plan.seed, rate, shared.plan.conversations.len()) {
        let Some(next) = lock(&shared.waiting).pop_front() else { break };
        at += gap;
        tokio::time::sleep_until((shared.start + Duration::from_secs_f64(at)).into()).await;
        let (shared, places) = (Arc::clone(&shared), places.clone());
        running.spawn(async move {
            let _place = match places {
                Some(places) => places.acquire_owned().await.ok(),
                None => None,
            };
            converse(&shared, next).await;
        });
    }
    while running.join_next().await.is_some() {}
}

/// Seconds between arrivals of a Poisson process: exponential, of mean `1 / rate`; the first comes at once.
pub fn poisson_gaps(seed: u64, rate: f64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|i| {
            // 53 random bits: a uniform number in [0, 1), whose distance from 1 is never 0.
            let uniform = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            if i == 0 { 0.0 } else { -(1.0 - uniform).ln() / rate }
        })
        .collect()
}

/// One conversation, turn by turn; it ends with the first turn that fails.
async fn converse(shared: &Shared, conversation: Conversation) {
    let mut turns: Vec<Turn> =
        conversation.system.into_iter().map(|text| Turn { role: "system", text }).collect();
    for text in conversation.user {
        turns.push(Turn { role: "user", text });
        let exchange = request::exchange(&shared.target, &turns, &shared.plan, shared.start).await;
        let (failed, answer) = (exchange.error.is_some(), exchange.text.clone());
        lock(&shared.done).push(exchange);
        if failed {
            return;
        }
        turns.push(Turn { role: "assistant", text: answer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_the_seeds_and_have_the_rate() {
        let gaps = poisson_gaps(7, 4.0, 20_000);
        assert_eq!(gaps[..100], poisson_gaps(7, 4.0, 100));
        assert_ne!(gaps[..100], poisson_gaps(8, 4.0, 100));
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean - 0.25).abs() < 0.01, "{mean}");
        // Of an exponential distribution, 1 - 1/e lie below the mean.
        let below = gaps.iter().filter(|g| **g < 0.25).count() as f64 / gaps.len() as f64;
        assert!((below - 0.632).abs() < 0.02, "{below}");
    }
}
