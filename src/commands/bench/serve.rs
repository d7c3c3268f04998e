//! `bench serve`: a load on this program's server, or on any that speaks OpenAI's API.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mommygpt::bench::load::prompts::{self, Conversation};
use mommygpt::bench::load::summary::{DEFINITIONS, Goodput, Summary};
use mommygpt::bench::load::{self, Arrival, LoadError, Plan, Target};
use mommygpt::bench::row::BUILD_COMMIT;
use mommygpt::bench::{page, plan};
use mommygpt::cli::{BenchServeArgs, EngineArgs, ServeArgs};
use mommygpt::config::Config;
use mommygpt::hub::BUILTIN_NAME;
use mommygpt::model::LoadOptions;
use serde_json::{Value, json};

use super::super::{Failure, Out};
use super::own_server::OwnServer;
use super::{list, open};

/// Words of a prompt, at most: more than any context holds.
const MAX_WORDS: usize = 1 << 20;
/// A rate above this is typed by mistake: a single machine cannot send so much.
const MAX_RATE: f64 = 100_000.0;
/// A day: longer than any answer.
const MAX_TIMEOUT_S: u64 = 86_400;

impl From<LoadError> for Failure {
    fn from(e: LoadError) -> Self {
        match e {
            LoadError::BadUrl { .. } => Self::usage(e.to_string()),
            _ => Self::failed(e.to_string()),
        }
    }
}

/// `bench serve`.
pub(super) fn serve(dir: Option<PathBuf>, args: &BenchServeArgs, out: &mut Out) -> Result<(), Failure> {
    if !["md", "json", "jsonl", "html", "svg"].contains(&args.output.as_str()) {
        return Err(Failure::usage(format!("-o {}: must be one of: md json jsonl html svg", args.output)));
    }
    let arrivals = arrivals(args)?;
    let conversations = conversations(args)?;
    let goodput = Goodput::parse(&args.goodput).map_err(Failure::usage)?;
    if args.timeout == 0 || args.timeout > MAX_TIMEOUT_S {
        return Err(Failure::usage(format!("--timeout {}: 1 to {MAX_TIMEOUT_S} seconds", args.timeout)));
    }
    let plan = |arrival| Plan {
        arrival,
        conversations: conversations.clone(),
        max_tokens: args.output_len,
        ignore_eos: args.ignore_eos,
        seed: args.seed,
        timeout: Duration::from_secs(args.timeout),
    };
    let plans: Vec<Plan> = arrivals.iter().map(|arrival| plan(*arrival)).collect();
    let target = args.url.as_deref().map(Target::parse).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        match target {
            Some(mut target) => {
                target.api_key.clone_from(&args.api_key);
                target.model.clone_from(&args.model);
                measure(target, plans, &goodput, args, out).await
            }
            None => own(dir, plans, &goodput, args, out).await,
        }
    })?;
    finish(&measured, args, out)
}

/// Everything that was measured on one server.
struct Measured {
    summaries: Vec<Summary>,
    server: String,
    model: Option<String>,
}

/// Starts the own server for the time of the measurement.
async fn own(
    dir: Option<PathBuf>,
    plans: Vec<Plan>,
    goodput: &Goodput,
    args: &BenchServeArgs,
    out: &mut Out,
) -> Result<Measured, Failure> {
    let engine = EngineArgs {
        ctx_size: args.ctx_size,
        threads: args.threads,
        device: args.device.clone(),
        ..EngineArgs::default()
    };
    let config = Config::resolve(dir, ServeArgs { engine, parallel: args.parallel, ..ServeArgs::default() })?;
    let most = plans.iter().filter_map(|plan| match plan.arrival {
        Arrival::Closed { concurrency } => Some(concurrency),
        Arrival::Open { .. } => None,
    });
    let most_at_once = args.parallel.or(most.max()).unwrap_or(config.n_parallel);
    let load = LoadOptions {
        n_ctx: config.n_ctx,
        n_threads: config.n_threads,
        device: config.device,
        max_sequences: most_at_once,
        isa: config.isa,
        kv: config.kv,
    };
    let name = args.model.as_deref().unwrap_or(BUILTIN_NAME);
    let server = OwnServer::start(open(&config.dir, name)?.gguf, load).await?;
    let mut target = Target::parse(&server.url)?;
    target.api_key = Some(server.token.clone());
    let measured = measure(target, plans, goodput, args, out).await;
    server.stop().await?;
    Ok(Measured { server: format!("own server, {most_at_once} at once"), ..measured? })
}

/// Finds out what the server has and takes, and wakes it with a first conversation.
async fn prepare(target: &mut Target, plans: &mut [Plan], args: &BenchServeArgs) -> Result<(), Failure> {
    let models = target.models().await?;
    if target.model.is_none() {
        target.model = models.first().cloned();
    }
    let Some(first) = plans.first().cloned() else { return Ok(()) };
    if first.ignore_eos && !load::takes_ignore_eos(target, &first).await {
        tracing::warn!("{}: ignore_eos is refused; answers end where the model ends them", target.url);
        for plan in plans.iter_mut() {
            plan.ignore_eos = false;
        }
    }
    if !args.no_warmup {
        let conversations = first.conversations.first().cloned().into_iter().collect();
        let ignore_eos = plans.iter().all(|plan| plan.ignore_eos);
        let alone = Plan { arrival: Arrival::Closed { concurrency: 1 }, conversations, ignore_eos, ..first };
        load::run(target, alone, std::future::pending(), |_, _| {}).await;
    }
    Ok(())
}

/// Every plan, one after the other; each is printed when it is done.
async fn measure(
    mut target: Target,
    mut plans: Vec<Plan>,
    goodput: &Goodput,
    args: &BenchServeArgs,
    out: &mut Out,
) -> Result<Measured, Failure> {
    prepare(&mut target, &mut plans, args).await?;
    let is_terminal = io::stderr().is_terminal();
    let mut summaries = Vec::new();
    for (i, plan) in plans.iter().enumerate() {
        let progress = |done: usize, all: usize| {
            if is_terminal {
                let of = plans.len();
                let _ = write!(
                    io::stderr(),
                    "\r\x1b[Kload {}/{of}: {done} of {all} requests are answered",
                    i + 1
                );
            }
        };
        let stop = async {
            // Without a handler for the signal nothing stops early; the load then ends by itself.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let outcome = load::run(&target, plan.clone(), stop, progress).await;
        if is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        let summary = Summary::of(&outcome, goodput);
        report(&summary, &target, args, out)?;
        summaries.push(summary);
        if outcome.interrupted {
            break;
        }
    }
    Ok(Measured { summaries, server: target.url, model: target.model })
}

fn labelled(summary: &Summary, model: Option<&str>) -> Value {
    let mut value = summary.json();
    value["backend"] = json!(BUILD_COMMIT);
    value["model_id"] = json!(model);
    value
}

fn report(summary: &Summary, target: &Target, args: &BenchServeArgs, out: &mut Out) -> io::Result<()> {
    match args.output.as_str() {
        "md" => summary.print(out)?,
        "jsonl" | "json" => writeln!(out, "{}", labelled(summary, target.model.as_deref()))?,
        _ => {}
    }
    out.flush()
}

/// Writes what needs all of it, and says what is incomplete with an exit code.
fn finish(measured: &Measured, args: &BenchServeArgs, out: &mut Out) -> Result<(), Failure> {
    let Measured { summaries, server, model } = measured;
    match args.output.as_str() {
        "md" => writeln!(out, "{DEFINITIONS}")?,
        "html" => write!(out, "{}", page::serve_page(summaries, server, model.as_deref()))?,
        "svg" => write!(out, "{}", page::serve_sheet(summaries))?,
        _ => {}
    }
    out.flush()?;
    let problems: Vec<String> =
        summaries.iter().filter_map(|s| Some(format!("{}: {}", s.load(), s.problem()?))).collect();
    if problems.is_empty() { Ok(()) } else { Err(Failure::failed(problems.join("; "))) }
}

fn arrivals(args: &BenchServeArgs) -> Result<Vec<Arrival>, Failure> {
    if args.rate.is_empty() {
        let typed: Vec<String> = args.concurrency.iter().cloned().collect();
        let counts = list("--concurrency", &typed, 1, 1, plan::MAX_SEQUENCES)?;
        return Ok(counts.into_iter().map(|concurrency| Arrival::Closed { concurrency }).collect());
    }
    let max_concurrency = match &args.concurrency {
        None => None,
        Some(text) => {
            Some(text.parse().ok().filter(|n| (1..=plan::MAX_SEQUENCES).contains(n)).ok_or_else(|| {
                Failure::usage(format!(
                    "--concurrency {text}: with --rate give one number, the most requests at once, up to {}",
                    plan::MAX_SEQUENCES
                ))
            })?)
        }
    };
    let rate = |text: &String| match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= MAX_RATE => Ok(Arrival::Open { rate, max_concurrency }),
        _ => Err(Failure::usage(format!(
            "--rate {text}: give requests a second, above 0 and up to {MAX_RATE}"
        ))),
    };
    args.rate.iter().map(rate).collect()
}

fn conversations(args: &BenchServeArgs) -> Result<Vec<Conversation>, Failure> {
    let within = |flag: &str, n: usize, most: usize| {
        if (1..=most).contains(&n) {
            Ok(())
        } else {
            Err(Failure::usage(format!("{flag} {n}: must be from 1 to {most}")))
        }
    };
    within("--num-prompts", args.num_prompts, prompts::MAX_CONVERSATIONS)?;
    within("--multi-turn", args.multi_turn, prompts::MAX_TURNS)?;
    within("--output-len", args.output_len, plan::MAX_VALUE)?;
    if let Some(n) = args.input_len {
        within("--input-len", n, MAX_WORDS)?;
    }
    let Some(path) = &args.prompts else {
        return Ok(prompts::built_in(args.num_prompts, args.multi_turn, args.input_len));
    };
    let text = read(path)?;
    let named = |problem| Failure::usage(format!("{}: {problem}", path.display()));
    prompts::from_text(&text, args.num_prompts, args.input_len).map_err(named)
}

fn read(path: &Path) -> Result<String, Failure> {
    let named = |e: io::Error| Failure::failed(format!("{}: {e}", path.display()));
    let len = std::fs::metadata(path).map_err(named)?.len();
    if len > prompts::MAX_FILE_BYTES {
        return Err(Failure::usage(format!(
            "{}: {len} bytes; a file of prompts may have {}",
            path.display(),
            prompts::MAX_FILE_BYTES
        )));
    }
    std::fs::read_to_string(path).map_err(named)
}
