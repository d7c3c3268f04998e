//! A forward pass of a small shape, through the public door: prompts and generation.

use criterion::{BenchmarkId, Criterion, Throughput};
use mommygpt::bench::shape;
use mommygpt::model::{self, Chunk, LoadOptions, LogitsFor, Model, TokenId};

/// Positions of a prompt.
const N_PROMPT: usize = 128;

fn load(name: &str) -> Box<dyn Model> {
    let gguf = shape::generate(name).expect("a shape");
    let n_threads = mommygpt::bench::system::n_cores();
    let options =
        LoadOptions { n_ctx: Some(4 * N_PROMPT), n_threads, max_sequences: 4, ..LoadOptions::default() };
    model::load(&gguf, &options).expect("a model")
}

/// Two layers are enough to see what a layer costs, and end soon.
pub(crate) fn forward(c: &mut Criterion) {
    let prompt: Vec<TokenId> = (0..N_PROMPT as TokenId).collect();
    for name in ["shape:tiny-llama:Q4_K_M", "shape:tiny-qwen3:Q8_0", "shape:tiny-qwen2:F16"] {
        let mut model = load(name);
        let mut group = c.benchmark_group(format!("forward/{}", name.trim_start_matches("shape:")));
        group.sample_size(10);
        group.throughput(Throughput::Elements(N_PROMPT as u64));
        let seq = model.new_sequence().expect("a sequence");
        group.bench_function("prefill", |b| {
            b.iter(|| {
                model.truncate(seq, 0);
                model.step(&[Chunk { seq, tokens: &prompt, logits: LogitsFor::Last }]).expect("a step")
            });
        });
        model.free_sequence(seq);
        for n_seqs in [1, 4] {
            let seqs: Vec<_> = (0..n_seqs).map(|_| model.new_sequence().expect("a sequence")).collect();
            for &seq in &seqs {
                model.step(&[Chunk { seq, tokens: &prompt, logits: LogitsFor::None }]).expect("a step");
            }
            let batch: Vec<Chunk<'_>> =
                seqs.iter().map(|&seq| Chunk { seq, tokens: &[7], logits: LogitsFor::Last }).collect();
            group.throughput(Throughput::Elements(n_seqs));
            group.bench_function(BenchmarkId::new("decode", n_seqs), |b| {
                b.iter(|| {
                    for &seq in &seqs {
                        model.truncate(seq, N_PROMPT);
                    }
                    model.step(&batch).expect("a step")
                });
            });
            for seq in seqs {
                model.free_sequence(seq);
            }
        }
        group.finish();
    }
}
