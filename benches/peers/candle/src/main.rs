//! Measures candle-transformers' own quantized models on one GGUF file, with llama-bench's flags and field names:
//! `candle-peer -m FILE [-p 512] [-n 0] [-d 0] [-r 5]`. One JSON object on a line, as `../peer.py` prints them. Threads are set by
//! `CANDLE_NUM_THREADS` and `RAYON_NUM_THREADS`.
//!
//! The time of a `-p` test ends when the last token's logits are there. A depth is evaluated anew before each
//! repetition, because these models cannot cut their cache back. One repetition before the first is not counted.

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen3};

/// Tokens of a generation that is not counted.
const WARM_UP: usize = 8;

enum Model {
    Llama(quantized_llama::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

impl Model {
    fn load(path: &str) -> Result<(Self, u32), Box<dyn Error>> {
        let mut file = File::open(path)?;
        let content = Content::read(&mut file)?;
        let architecture = content.metadata["general.architecture"].to_string()?.clone();
        let n_vocab = content.tensor_infos["token_embd.weight"].shape.dims()[0] as u32;
        let model = match architecture.as_str() {
            "llama" => {
                Self::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?)
            }
            "qwen3" => {
                Self::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?)
            }
            other => return Err(format!("{path}: {other} is neither llama nor qwen3").into()),
        };
        Ok((model, n_vocab))
    }

    /// Logits of the last of `tokens`, whose first stands at `position`.
    fn forward(&mut self, tokens: &[u32], position: usize) -> candle_core::Result<Vec<f32>> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Llama(model) => model.forward(&input, position)?,
            Self::Qwen3(model) => model.forward(&input, position)?,
        };
        logits.flatten_all()?.to_vec1()
    }

    fn forget(&mut self) {
        match self {
            Self::Llama(model) => model.clear_kv_cache(),
            Self::Qwen3(model) => model.clear_kv_cache(),
        }
    }
}

/// Tokens by a linear congruential generator: speed does not hang on which they are.
struct Tokens {
    state: u64,
    n_vocab: u32,
}

impl Tokens {
    fn take(&mut self, n: usize) -> Vec<u32> {
        let mut next = || {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.state >> 33) as u32 % self.n_vocab
        };
        (0..n).map(|_| next()).collect()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let given: HashMap<&str, &str> = words.chunks_exact(2).map(|w| (w[0].as_str(), w[1].as_str())).collect();
    let number = |flag: &str, default: usize| given.get(flag).map_or(Ok(default), |n| n.parse::<usize>());
    let (n_prompt, n_gen, depth) = (number("-p", 512)?, number("-n", 0)?, number("-d", 0)?);
    let repetitions = number("-r", 5)?;
    let (mut model, n_vocab) = Model::load(given.get("-m").ok_or("which file? -m FILE")?)?;
    let mut tokens = Tokens { state: 1, n_vocab };
    let mut samples = Vec::new();
    for repetition in 0..=repetitions {
        model.forget();
        if depth > 0 {
            model.forward(&tokens.take(depth), 0)?;
        }
        let started = Instant::now();
        if n_prompt > 0 {
            model.forward(&tokens.take(n_prompt), depth)?;
        } else {
            let n = if repetition == 0 { n_gen.min(WARM_UP) } else { n_gen };
            for (i, token) in tokens.take(n).into_iter().enumerate() {
                model.forward(&[token], depth + i)?;
            }
        }
        if repetition > 0 {
            samples.push((n_prompt + n_gen) as f64 / started.elapsed().as_secs_f64());
        }
    }
    println!(
        r#"{{"engine":"candle","version":"0.11.1","n_prompt":{n_prompt},"n_gen":{n_gen},"n_depth":{depth},"samples_ts":{samples:?}}}"#
    );
    Ok(())
}
