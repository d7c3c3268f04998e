//! Writes GGUF files for tests: well-formed ones, and ones with a single thing wrong.

/// A metadata value.
#[derive(Clone, Debug)]
pub(crate) enum Meta {
    U8(u8),
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Str(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// Type number and bytes as they shall stand in the file.
    Raw(u32, Vec<u8>),
}

impl Meta {
    fn write(&self, out: &mut Vec<u8>) {
        let mut put = |number: u32, bytes: &[u8]| {
            out.extend(number.to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Self::U8(v) => put(0, &[*v]),
            Self::U32(v) => put(4, &v.to_le_bytes()),
            Self::I32(v) => put(5, &v.to_le_bytes()),
            Self::F32(v) => put(6, &v.to_le_bytes()),
            Self::Bool(v) => put(7, &[u8::from(*v)]),
            Self::Str(v) => put(8, &string(v)),
            Self::U64(v) => put(10, &v.to_le_bytes()),
            Self::Strings(v) => put(9, &array(8, v.len(), v.iter().map(|s| string(s)))),
            Self::I32s(v) => put(9, &array(5, v.len(), v.iter().map(|x| x.to_le_bytes().to_vec()))),
            Self::F32s(v) => put(9, &array(6, v.len(), v.iter().map(|x| x.to_le_bytes().to_vec()))),
            Self::Raw(number, bytes) => put(*number, bytes),
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// An array's bytes behind its type number: element type, length, elements.
pub(crate) fn array(element: u32, len: usize, elements: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut out = element.to_le_bytes().to_vec();
    out.extend((len as u64).to_le_bytes());
    out.extend(elements.flatten());
    out
}

/// A tensor; every field stands in the file as it is, fitting or not.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Row length first.
    pub(crate) dims: Vec<u64>,
    /// 0 is `F32`, 8 is `Q8_0`.
    pub(crate) type_number: u32,
    /// From the start of the tensor data; `None` puts it behind the tensor before, aligned.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A file to be.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) metadata: Vec<(String, Meta)>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) alignment: u64,
    /// Instead of the true counts.
    pub(crate) n_metadata: Option<u64>,
    pub(crate) n_tensors: Option<u64>,
}

impl Writer {
    /// Without metadata or tensors.
    pub(crate) fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            metadata: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            n_metadata: None,
            n_tensors: None,
        }
    }

    /// Sets a metadata key, in place where it is there.
    pub(crate) fn set(&mut self, key: &str, value: Meta) {
        match self.metadata.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
    }

    /// Leaves a metadata key out.
    pub(crate) fn unset(&mut self, key: &str) {
        self.metadata.retain(|(known, _)| known != key);
    }

    /// Adds a tensor of 32-bit floats; the row length comes first.
    pub(crate) fn f32_tensor(&mut self, name: &str, dims: &[u64], values: &[f32]) {
        assert_eq!(dims.iter().product::<u64>(), values.len() as u64);
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.push(Tensor {
            name: name.into(),
            dims: dims.into(),
            type_number: 0,
            offset: None,
            data,
        });
    }

    /// The tensor of that name, to be broken.
    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// The file, and how long its header is.
    pub(crate) fn bytes_and_header_len(&self) -> (Vec<u8>, usize) {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_metadata.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            out.extend(string(key));
            value.write(&mut out);
        }
        let mut data: Vec<u8> = Vec::new();
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(tensor.type_number.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
            data.resize(data.len().next_multiple_of(self.alignment as usize), 0);
        }
        let header_len = out.len();
        if !data.is_empty() {
            out.resize(header_len.next_multiple_of(self.alignment as usize), 0);
        }
        out.extend(data);
        (out, header_len)
    }

    /// The file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_and_header_len().0
    }
}

/// Entries of the tiny model's vocabulary: specials, all bytes, and a few words.
pub(crate) const TINY_VOCAB: usize = 3 + 256 + 61;

/// A llama of two layers with random but always equal weights, 32-bit floats, under 300 KiB: a `SentencePiece`
/// vocabulary with byte tokens, a chat template that writes every role, a context of 256.
pub(crate) fn tiny_llama() -> Writer {
    llama(TINY_VOCAB)
}

/// As [`tiny_llama`], with only so many entries of its vocabulary.
pub(crate) fn llama(n_vocab: usize) -> Writer {
    let (width, heads, heads_kv, inner, layers) = (32_u64, 4_u64, 2_u64, 64_u64, 2_u64);
    let mut w = Writer::new();
    w.set("general.architecture", Meta::Str("llama".into()));
    w.set("general.name", Meta::Str("tiny".into()));
    w.set("llama.block_count", Meta::U32(layers as u32));
    w.set("llama.context_length", Meta::U32(256));
    w.set("llama.embedding_length", Meta::U32(width as u32));
    w.set("llama.feed_forward_length", Meta::U32(inner as u32));
    w.set("llama.attention.head_count", Meta::U32(heads as u32));
    w.set("llama.attention.head_count_kv", Meta::U32(heads_kv as u32));
    w.set("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5));
    w.set("llama.rope.dimension_count", Meta::U32((width / heads) as u32));
    w.set("llama.rope.freq_base", Meta::F32(10_000.0));
    vocabulary(&mut w, n_vocab);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut matrix = |w: &mut Writer, name: &str, n_in: u64, n_out: u64| {
        let scale = 2.0 / (n_in as f32).sqrt();
        let values: Vec<f32> = (0..n_in * n_out).map(|_| scale * random(&mut state)).collect();
        w.f32_tensor(name, &[n_in, n_out], &values);
    };
    let ones = vec![1.0; width as usize];
    matrix(&mut w, "token_embd.weight", width, n_vocab as u64);
    w.f32_tensor("output_norm.weight", &[width], &ones);
    matrix(&mut w, "output.weight", width, n_vocab as u64);
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        w.f32_tensor(&name("attn_norm"), &[width], &ones);
        matrix(&mut w, &name("attn_q"), width, width);
        matrix(&mut w, &name("attn_k"), width, width / heads * heads_kv);
        matrix(&mut w, &name("attn_v"), width, width / heads * heads_kv);
        matrix(&mut w, &name("attn_output"), width, width);
        w.f32_tensor(&name("ffn_norm"), &[width], &ones);
        matrix(&mut w, &name("ffn_gate"), width, inner);
        matrix(&mut w, &name("ffn_up"), width, inner);
        matrix(&mut w, &name("ffn_down"), inner, width);
    }
    w
}

fn vocabulary(w: &mut Writer, n_vocab: usize) {
    let words = (0..).map(|i| format!("\u{2581}word{i}"));
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let specials = ["<unk>", "<s>", "</s>"].map(String::from);
    let tokens: Vec<String> = specials.into_iter().chain(bytes).chain(words).take(n_vocab).collect();
    let kinds = [2, 3, 3].into_iter().chain([6; 256]).chain(std::iter::repeat(1)).take(n_vocab);
    let template = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}\
                    {% if add_generation_prompt %}<s>assistant: {% endif %}";
    w.set("tokenizer.ggml.model", Meta::Str("llama".into()));
    w.set("tokenizer.ggml.tokens", Meta::Strings(tokens));
    w.set("tokenizer.ggml.scores", Meta::F32s(vec![0.0; n_vocab]));
    w.set("tokenizer.ggml.token_type", Meta::I32s(kinds.collect()));
    w.set("tokenizer.ggml.bos_token_id", Meta::U32(1));
    w.set("tokenizer.ggml.eos_token_id", Meta::U32(2));
    w.set("tokenizer.ggml.unknown_token_id", Meta::U32(0));
    w.set("tokenizer.ggml.add_bos_token", Meta::Bool(true));
    w.set("tokenizer.chat_template", Meta::Str(template.into()));
}

/// The next number of a fixed sequence, in -1..1.
fn random(state: &mut u64) -> f32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}
