//! Two thousand damaged model files: each is refused in one clear line or works, and no process that tries one breaks.

use std::fs;
use std::path::PathBuf;

use half::f16;
use mommygpt::hub::preflight::{Limits, Preflight, Tried, Verdict};

use crate::gguf_writer::{Meta, Writer, llama};

/// As many as a run on every change can afford.
const N_FILES: usize = 2_000;
/// Files that one process tries.
const BATCH: usize = 100;
/// The files have 80 KB; what a process needs for itself is far below.
const LIMITS: Limits = Limits { memory: 512 << 20, seconds: 120 };
/// Another seed is another two thousand files; a failure names the file's number.
const SEED: u64 = 0x6d6f_6d6d_7967_7074;

/// Numbers with a fixed sequence (`splitmix64`).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The tiny llama with its matrices in blocks of 8-bit numbers, whose scales can be damaged too.
fn quantized(mut writer: Writer) -> Writer {
    for tensor in writer.tensors.iter_mut().filter(|t| t.dims.len() == 2) {
        let floats: Vec<f32> =
            tensor.data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        tensor.type_number = 8;
        tensor.data = floats
            .chunks_exact(32)
            .flat_map(|block| {
                let scale = block.iter().fold(0.0_f32, |max, x| max.max(x.abs())) / 127.0;
                let numbers = block.iter().map(move |x| (x / scale.max(1e-9)).round() as i8);
                f16::from_f32(scale).to_le_bytes().into_iter().chain(numbers.map(i8::cast_unsigned))
            })
            .collect();
    }
    writer
}

/// The same with a vocabulary of merges, which has a parser of its own.
fn with_merges(mut writer: Writer) -> Writer {
    let tokens = [
        "<unk>", "<s>", "</s>", "a", "b", "c", "ab", "abc", "\u{120}", "\u{120}a", "d", "e", "f", "g", "h",
        "i",
    ];
    writer.set("tokenizer.ggml.model", Meta::Str("gpt2".into()));
    writer.set("tokenizer.ggml.pre", Meta::Str("qwen2".into()));
    writer.set("tokenizer.ggml.tokens", Meta::Strings(tokens.map(String::from).to_vec()));
    writer
        .set("tokenizer.ggml.merges", Meta::Strings(["a b", "ab c", "\u{120} a"].map(String::from).to_vec()));
    writer.unset("tokenizer.ggml.scores");
    writer.unset("tokenizer.ggml.unknown_token_id");
    writer
}

/// What parsers trip over.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    31,
    33,
    255,
    256,
    65_535,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    1 << 61,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

fn mutate(bytes: &mut Vec<u8>, header_len: usize, r: &mut Numbers) {
    // Most damage goes where the decisions are made.
    let end = if r.below(10) < 7 { header_len } else { bytes.len() }.min(bytes.len());
    let at = r.below(end);
    let run = (1 + r.below(40)).min(bytes.len() - at);
    match r.below(9) {
        0 => bytes[at] = r.one_of(&[0x00, 0xff, bytes[at] ^ 0x80]),
        1 => bytes[at] ^= 1 << r.below(8),
        2 => put(bytes, at, &(r.one_of(NUMBERS) as u32).to_le_bytes()),
        3 => put(bytes, at, &r.one_of(NUMBERS).to_le_bytes()),
        4 => put(bytes, at, &r.one_of(&[f32::NAN, f32::INFINITY, -0.0, 1e38, 1e-40]).to_le_bytes()),
        5 => drop(bytes.drain(at..at + run)),
        6 => {
            let copy = bytes[at..at + run].to_vec();
            let to = r.below(end);
            bytes.splice(to..to, copy);
        }
        7 => bytes.truncate(at.max(1)),
        _ => {
            for byte in &mut bytes[at..at + run] {
                *byte = r.next() as u8;
            }
        }
    }
}

fn put(bytes: &mut [u8], at: usize, number: &[u8]) {
    let n = number.len().min(bytes.len() - at);
    bytes[at..at + n].copy_from_slice(&number[..n]);
}

#[test]
fn two_thousand_damaged_files_are_refused_or_work() {
    let bases = [llama(16), quantized(llama(16)), with_merges(quantized(llama(16)))];
    let bases = bases.map(|writer| writer.bytes_and_header_len());
    let preflight = Preflight::with_program(env!("CARGO_BIN_EXE_mommygpt"));
    let dir = tempfile::tempdir().unwrap();
    let whole: Vec<PathBuf> = (0..bases.len()).map(|i| dir.path().join(format!("base-{i}.gguf"))).collect();
    for (path, (bytes, _)) in whole.iter().zip(&bases) {
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(preflight.check_all(&whole, LIMITS).unwrap(), vec![Verdict::Good(Tried::Works); bases.len()]);
    let (mut n_works, mut n_refused) = (0, 0);
    for batch in 0..N_FILES / BATCH {
        let mut files = Vec::new();
        for i in batch * BATCH..(batch + 1) * BATCH {
            let mut r = Numbers(SEED ^ (i as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
            let (bytes, header_len) = &bases[i % bases.len()];
            let mut bytes = bytes.clone();
            for _ in 0..=r.below(3) {
                mutate(&mut bytes, *header_len, &mut r);
            }
            let path = dir.path().join(format!("{i}.gguf"));
            fs::write(&path, &bytes).unwrap();
            files.push(path);
        }
        let verdicts = preflight.check_all(&files, LIMITS).unwrap_or_else(|e| panic!("{e}"));
        for (path, verdict) in files.iter().zip(verdicts) {
            match verdict {
                Verdict::Good(_) => n_works += 1,
                Verdict::Refused(_, why) => {
                    assert!(!why.is_empty() && why.len() < 1000, "{}: {why:?}", path.display());
                    n_refused += 1;
                }
            }
            fs::remove_file(path).unwrap();
        }
    }
    assert_eq!(n_works + n_refused, N_FILES);
    // Else the damage is of one kind only, and nothing was learned.
    assert!(n_works > N_FILES / 50 && n_refused > N_FILES / 4, "{n_works} work, {n_refused} are refused");
}
