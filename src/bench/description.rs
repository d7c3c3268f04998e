//! What llama.cpp calls a model, and its size and parameters as llama-bench counts them.
//!
//! Names: `llama_model_desc` (architecture, size class by layers and widths, `llama_model_ftype_name`); size and
//! parameters: sums over the file's tensors, as its loader keeps them.

use crate::model::{Gguf, ModelConfig};

/// Engine-independent quantities of a model file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// `qwen3 0.6B Q4_K - Medium`.
    pub model_type: String,
    /// Bytes of all tensors.
    pub size: u64,
    /// Elements of all tensors.
    pub n_params: u64,
    /// Bytes of weights that one decode step reads, whatever the number of sequences: all but the token embedding, of
    /// which a row each is read, except where it is the output matrix too.
    pub bytes_per_step: u64,
    /// Elements of the matrices that every token passes through, without the output matrix.
    pub n_block_weights: u64,
    /// Elements of the output matrix, which only rows with logits pass through.
    pub n_output_weights: u64,
    /// Whether most matrix elements are integers with scales.
    pub is_quantized: bool,
}

impl Description {
    /// Describes a file whose configuration has been read.
    pub fn of(gguf: &Gguf, config: &ModelConfig) -> Self {
        let has_output = gguf.tensor("output.weight").is_some();
        let mut sums = Self {
            model_type: format!("{} {} {}", config.architecture, size_class(config), file_type(gguf)),
            size: 0,
            n_params: 0,
            bytes_per_step: 0,
            n_block_weights: 0,
            n_output_weights: 0,
            is_quantized: false,
        };
        let mut n_quantized = 0_u64;
        let count = |key: &str| gguf.u64(&format!("{}.{key}", config.architecture)).unwrap_or(0);
        let experts = count("expert_used_count") as f64 / count("expert_count").max(1) as f64;
        for tensor in gguf.tensors() {
            let (bytes, n) = (tensor.size_bytes() as u64, tensor.n_elements() as u64);
            sums.size += bytes;
            sums.n_params += n;
            // Of experts, one token needs so many.
            let share = if tensor.name.contains("_exps.") { experts } else { 1.0 };
            let (bytes, n) = ((bytes as f64 * share) as u64, (n as f64 * share) as u64);
            let is_embedding = tensor.name == "token_embd.weight";
            if !is_embedding || !has_output {
                sums.bytes_per_step += bytes;
            }
            if tensor.name == "output.weight" || is_embedding && !has_output {
                sums.n_output_weights += n;
            } else if !is_embedding && tensor.dims.len() > 1 {
                sums.n_block_weights += n;
            }
            if tensor.tensor_type.block_len() > 1 {
                n_quantized += n;
            }
        }
        sums.is_quantized = n_quantized * 2 > sums.n_block_weights + sums.n_output_weights;
        sums
    }
}

/// Size classes by `(architecture, layers)`; llama.cpp knows nothing else of most models.
const SIZE_CLASSES: &[(&str, usize, &str)] = &[
    ("llama", 16, "1B"),
    ("llama", 22, "1B"),
    ("llama", 26, "3B"),
    ("llama", 28, "3B"),
    ("llama", 30, "256M"),
    ("llama", 36, "8B"),
    ("llama", 40, "13B"),
    ("llama", 48, "34B"),
    ("llama", 60, "30B"),
    ("qwen2", 32, "7B"),
    ("qwen2", 36, "3B"),
    ("qwen2", 48, "14B"),
    ("qwen2", 64, "32B"),
    ("qwen2", 80, "70B"),
    ("qwen3", 40, "14B"),
    ("qwen3", 64, "32B"),
    ("gemma", 18, "2B"),
    ("gemma", 28, "7B"),
    ("gemma2", 26, "2B"),
    ("gemma2", 42, "9B"),
    ("gemma2", 46, "27B"),
    ("gemma3", 18, "270M"),
    ("gemma3", 26, "1B"),
    ("gemma3", 32, "8B"),
    ("gemma3", 34, "4B"),
    ("gemma3", 48, "12B"),
    ("gemma3", 62, "27B"),
    ("phi3", 24, "1B"),
    ("phi3", 32, "3B"),
    ("phi3", 40, "14B"),
    ("smollm3", 36, "3B"),
    ("granite", 32, "3B"),
    ("granite", 64, "30B"),
    ("glm4", 17, "1B"),
    ("glm4", 40, "9B"),
    ("glm4", 61, "32B"),
    ("qwen3moe", 48, "30B.A3B"),
    ("qwen3moe", 94, "235B.A22B"),
];

/// LFM2's classes go by the inner width instead.
const LFM2_SIZE_CLASSES: &[(usize, &str)] =
    &[(4608, "350M"), (6912, "700M"), (8192, "1.2B"), (10752, "2.6B")];

/// A shape that llama.cpp has no class for.
const NO_SIZE_CLASS: &str = "?B";

fn size_class(config: &ModelConfig) -> &'static str {
    let pick = |condition: bool, yes, no| if condition { yes } else { no };
    match (config.architecture.as_str(), config.n_layer) {
        ("llama", 32) if config.n_vocab == 49152 => "3B",
        ("llama", 32) => pick(config.n_vocab < 40000, "7B", "8B"),
        ("llama", 80) => pick(config.n_head == config.n_head_kv, "65B", "70B"),
        ("qwen2", 24) => pick(config.n_embd == 1024, "0.5B", "1B"),
        ("qwen2", 28) => pick(config.n_embd == 1536, "1.5B", "7B"),
        ("qwen2", 40) => pick(config.n_head == 20, "4B", "13B"),
        ("qwen3", 28) => pick(config.n_embd == 1024, "0.6B", "1.7B"),
        ("qwen3", 36) => pick(config.n_embd == 2560, "4B", "8B"),
        ("lfm2", _) => {
            let found = LFM2_SIZE_CLASSES.iter().find(|(n_ff, _)| *n_ff == config.n_ff);
            found.map_or(NO_SIZE_CLASS, |found| found.1)
        }
        (architecture, n_layer) => SIZE_CLASSES
            .iter()
            .find(|(known, layers, _)| *known == architecture && *layers == n_layer)
            .map_or(NO_SIZE_CLASS, |found| found.2),
    }
}

/// llama.cpp's words for `general.file_type`; empty where a number is retired.
const FILE_TYPES: &[&str] = &[
    "all F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "",
    "",
    "",
    "Q8_0",
    "Q5_0",
    "Q5_1",
    "Q2_K - Medium",
    "Q3_K - Small",
    "Q3_K - Medium",
    "Q3_K - Large",
    "Q4_K - Small",
    "Q4_K - Medium",
    "Q5_K - Small",
    "Q5_K - Medium",
    "Q6_K",
    "IQ2_XXS - 2.0625 bpw",
    "IQ2_XS - 2.3125 bpw",
    "Q2_K - Small",
    "IQ3_XS - 3.3 bpw",
    "IQ3_XXS - 3.0625 bpw",
    "IQ1_S - 1.5625 bpw",
    "IQ4_NL - 4.5 bpw",
    "IQ3_S - 3.4375 bpw",
    "IQ3_S mix - 3.66 bpw",
    "IQ2_S - 2.5 bpw",
    "IQ2_M - 2.7 bpw",
    "IQ4_XS - 4.25 bpw",
    "IQ1_M - 1.75 bpw",
    "BF16",
    "",
    "",
    "",
    "TQ1_0 - 1.69 bpw ternary",
    "TQ2_0 - 2.06 bpw ternary",
    "MXFP4 MoE",
    "NVFP4",
    "Q1_0",
    "Q2_0",
];

/// A number that llama.cpp has no words for.
const UNKNOWN_FILE_TYPE: &str = "unknown, may not work";

/// The words for the file's own number, else for a guess from the type that most tensors have, marked as llama.cpp marks
/// it.
fn file_type(gguf: &Gguf) -> String {
    if let Some(number) = gguf.u32("general.file_type") {
        let name = FILE_TYPES.get(number as usize).filter(|name| !name.is_empty());
        return (*name.unwrap_or(&UNKNOWN_FILE_TYPE)).to_owned();
    }
    let mut counts: Vec<(&'static str, usize)> = Vec::new();
    for tensor in gguf.tensors() {
        let name = tensor.tensor_type.name();
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => counts.push((name, 1)),
        }
    }
    // Its loader keeps the first type whose count is the largest.
    let mut most = ("", 0);
    for (name, n) in counts {
        if n > most.1 {
            most = (name, n);
        }
    }
    let guess = match most.0 {
        "F32" => "all F32",
        "Q2_K" => "Q2_K - Medium",
        "Q3_K" => "Q3_K - Medium",
        "Q4_K" => "Q4_K - Medium",
        "Q5_K" => "Q5_K - Medium",
        other => other,
    };
    format!("(guessed) {guess}")
}

#[cfg(test)]
mod tests {
    use super::super::shape;
    use super::*;

    /// What llama.cpp's `llama_model_desc` (the library of llama-cpp-python 0.3.36) says of small files of these shapes.
    #[test]
    fn size_classes_are_those_that_llama_cpp_prints() {
        let gguf = shape::outline("shape:tiny-llama:Q8_0").unwrap();
        let mut config = ModelConfig::from_gguf(&gguf, None).unwrap();
        for (architecture, n_layer, class) in [
            ("llama", 2, "?B"),
            ("llama", 30, "256M"),
            ("llama", 32, "7B"),
            ("llama", 80, "70B"),
            ("qwen2", 24, "1B"),
            ("qwen2", 28, "7B"),
            ("qwen3", 28, "1.7B"),
            ("qwen3", 36, "8B"),
            ("gemma2", 46, "27B"),
            ("gemma3", 18, "270M"),
            ("phi3", 24, "1B"),
            ("granite", 32, "3B"),
            ("granite", 40, "?B"),
            ("granite", 64, "30B"),
            ("glm4", 40, "9B"),
            ("qwen3moe", 48, "30B.A3B"),
        ] {
            (config.architecture, config.n_layer) = (architecture.to_owned(), n_layer);
            assert_eq!(size_class(&config), class, "{architecture} of {n_layer} layers");
        }
        config.architecture = "llama".to_owned();
        for (n_vocab, class) in [(39_999, "7B"), (40_000, "8B"), (49_152, "3B"), (49_153, "8B")] {
            (config.n_layer, config.n_vocab) = (32, n_vocab);
            assert_eq!(size_class(&config), class, "{n_vocab} words");
        }
        config.architecture = "lfm2".to_owned();
        for (n_ff, class) in [(4608, "350M"), (6912, "700M"), (8192, "1.2B"), (10_752, "2.6B"), (512, "?B")] {
            config.n_ff = n_ff;
            assert_eq!(size_class(&config), class, "{n_ff} wide");
        }
    }

    #[test]
    fn file_types_stand_at_their_numbers() {
        for (number, name) in
            [(0, "all F32"), (7, "Q8_0"), (15, "Q4_K - Medium"), (27, "IQ3_S mix - 3.66 bpw"), (32, "BF16")]
        {
            assert_eq!(FILE_TYPES[number], name);
        }
        assert_eq!((FILE_TYPES[36], FILE_TYPES[41]), ("TQ1_0 - 1.69 bpw ternary", "Q2_0"));
    }
}
