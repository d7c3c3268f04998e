//! `replay`: a saved answer is generated again, alone and with fixed steps, and its tokens are compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mommygpt::cli::{ReplayArgs, ServeArgs};
use mommygpt::config::Config;
use mommygpt::engine::{Engine, Event, GenerateRequest, Owner, SamplingParams, TokenId};
use mommygpt::hub::Models;
use serde::Deserialize;

use super::serve::{engine_options, load_failure};
use super::{Failure, Out};

/// A larger file is no answer: the longest contexts have a million tokens of some seven digits each.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What is read of an answer; what else it has does not matter here.
#[derive(Deserialize)]
struct Saved {
    model: String,
    prompt_token_ids: Vec<TokenId>,
    sampling: Sampling,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    token_ids: Vec<TokenId>,
}

/// As `/v1` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sampling {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    repeat_last_n: usize,
    presence_penalty: f32,
    frequency_penalty: f32,
    seed: Option<u64>,
    logit_bias: BTreeMap<TokenId, f32>,
}

/// `replay`.
pub(super) fn replay(dir: Option<PathBuf>, args: ReplayArgs, out: &mut Out) -> Result<(), Failure> {
    use std::io::Write as _;

    let saved = read(&args.file)?;
    let Some(expected) = saved.choices.first().map(|c| &c.token_ids).filter(|ids| !ids.is_empty()) else {
        return Err(Failure::bad_data(format!("{}: the answer has no tokens", args.file.display())));
    };
    let typed = ServeArgs {
        engine: args.engine,
        parallel: Some(1),
        deterministic: Some(true),
        ..ServeArgs::default()
    };
    let config = Config::resolve(dir, typed)?;
    let file = Models::of(&config.dir).resolve(config.model.as_deref())?;
    file.open_runnable()?;
    let engine = Engine::start(engine_options(&config, &file));
    engine.wait_ready_blocking().map_err(|e| load_failure(&e).of(&file))?;
    let loaded = engine.model_info().map(|info| info.name.clone()).unwrap_or_default();
    if loaded != saved.model {
        return Err(Failure::failed(format!(
            "the answer is of the model {}, this one is {loaded}",
            saved.model
        )));
    }
    let new = GenerateRequest::new(Owner(0), saved.prompt_token_ids, params(saved.sampling), expected.len());
    let ids = generate(&engine, GenerateRequest { logprobs: Some(0), ..new })?;
    match std::iter::zip(&ids, expected).position(|(a, b)| a != b) {
        Some(i) => Err(Failure::failed(format!(
            "token {i} of {} differs: {} was saved, {} came",
            expected.len(),
            expected[i],
            ids[i]
        ))),
        None if ids.len() < expected.len() => {
            Err(Failure::failed(format!("{} tokens were saved, {} came", expected.len(), ids.len())))
        }
        None => Ok(writeln!(out, "the same {} tokens", ids.len())?),
    }
}

fn read(path: &Path) -> Result<Saved, Failure> {
    let bad = |why: &dyn std::fmt::Display| Failure::bad_data(format!("{}: {why}", path.display()));
    let meta = std::fs::metadata(path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    if meta.len() > MAX_FILE_BYTES {
        return Err(bad(&"is too large for an answer"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
    serde_json::from_str(&text).map_err(|e| bad(&format!("no answer with token ids: {e}")))
}

fn params(saved: Sampling) -> SamplingParams {
    SamplingParams {
        temperature: saved.temperature,
        top_k: saved.top_k,
        top_p: saved.top_p,
        min_p: saved.min_p,
        repeat_penalty: saved.repeat_penalty,
        repeat_last_n: saved.repeat_last_n,
        presence_penalty: saved.presence_penalty,
        frequency_penalty: saved.frequency_penalty,
        seed: saved.seed,
        logit_bias: saved.logit_bias.into_iter().collect(),
    }
}

fn generate(engine: &Engine, request: GenerateRequest) -> Result<Vec<TokenId>, Failure> {
    let mut generation = engine.submit(request).map_err(|e| Failure::failed(e.to_string()))?;
    let mut ids = Vec::new();
    while let Some(event) = generation.events.blocking_recv() {
        match event {
            Event::Delta { tokens, .. } => ids.extend(tokens.iter().map(|t| t.id)),
            Event::Done { .. } => return Ok(ids),
            Event::Failed(why) => return Err(Failure::failed(why)),
            Event::Queued { .. } | Event::Prefill { .. } => {}
        }
    }
    Err(Failure::failed("the engine went away"))
}
