"""Makes tiny random models of architectures whose real files are large, and the logits that llama.cpp computes for them.

    pip install llama-cpp-python gguf numpy && python make.py

Writes NAME.gguf and NAME.npy (positions, vocabulary) beside this script; tests/it/oracle.rs holds ours against them. The
weights and the cache are 32-bit floats, so what differs is rounding.
"""

import ctypes
import pathlib

import gguf
import llama_cpp as lc
import numpy as np

HERE = pathlib.Path(__file__).parent
VOCAB, WIDTH, HEADS, HEADS_KV, HEAD_DIM, INNER, CTX = 64, 32, 2, 1, 16, 32, 128
PROMPT = [1, 40, 17, 9, 33, 33, 5, 62, 21, 8, 50, 3, 12, 47, 30, 2, 19, 55, 6, 28, 41, 11, 60, 7]


class Model:
    def __init__(self, architecture, n_layer, seed):
        self.path = HERE / f"{architecture}.gguf"
        self.random = np.random.default_rng(seed)
        w = self.w = gguf.GGUFWriter(str(self.path), architecture)
        w.add_name(f"tiny {architecture}")
        w.add_block_count(n_layer)
        w.add_context_length(CTX)
        w.add_embedding_length(WIDTH)
        w.add_feed_forward_length(INNER)
        w.add_head_count(HEADS)
        w.add_key_length(HEAD_DIM)
        w.add_value_length(HEAD_DIM)
        w.add_layer_norm_rms_eps(1e-5)
        w.add_rope_freq_base(10000.0)
        w.add_vocab_size(VOCAB)
        w.add_tokenizer_model("llama")
        w.add_token_list(["<unk>", "<s>", "</s>"] + [f"\u2581w{i}" for i in range(VOCAB - 3)])
        w.add_token_scores([0.0] * VOCAB)
        w.add_token_types([2, 3, 3] + [1] * (VOCAB - 3))
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        self.matrix("token_embd", WIDTH, VOCAB, scale=1.0)

    def matrix(self, name, n_in, n_out, scale=None, more=()):
        scale = scale or 1.5 / np.sqrt(n_in)
        values = self.random.standard_normal((*more, n_out, n_in)) * scale
        self.w.add_tensor(f"{name}.weight", values.astype(np.float32))

    def norm(self, name, n=WIDTH):
        self.w.add_tensor(f"{name}.weight", (1 + 0.3 * self.random.standard_normal(n)).astype(np.float32))

    def bias(self, name, n):
        self.w.add_tensor(f"{name}.bias", (0.3 * self.random.standard_normal(n)).astype(np.float32))

    def attention(self, layer, bias=False, norms=False):
        name = lambda part: f"blk.{layer}.{part}"
        self.norm(name("attn_norm"))
        for part, n in [("attn_q", HEADS * HEAD_DIM), ("attn_k", HEADS_KV * HEAD_DIM), ("attn_v", HEADS_KV * HEAD_DIM)]:
            self.matrix(name(part), WIDTH, n)
            if bias:
                self.bias(name(part), n)
        if norms:
            self.norm(name("attn_q_norm"), HEAD_DIM)
            self.norm(name("attn_k_norm"), HEAD_DIM)
        self.matrix(name("attn_output"), HEADS * HEAD_DIM, WIDTH)

    def dense(self, layer):
        self.norm(f"blk.{layer}.ffn_norm")
        self.matrix(f"blk.{layer}.ffn_gate", WIDTH, INNER)
        self.matrix(f"blk.{layer}.ffn_up", WIDTH, INNER)
        self.matrix(f"blk.{layer}.ffn_down", INNER, WIDTH)

    def finish(self):
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()
        np.save(HERE / f"{self.path.stem}.npy", logits(self.path))


def glm4():
    m = Model("glm4", 2, 1)
    m.w.add_head_count_kv(HEADS_KV)
    m.w.add_rope_dimension_count(HEAD_DIM // 2)
    for layer in range(2):
        m.attention(layer, bias=True)
        m.norm(f"blk.{layer}.post_attention_norm")
        m.norm(f"blk.{layer}.ffn_norm")
        m.matrix(f"blk.{layer}.ffn_up", WIDTH, 2 * INNER)
        m.matrix(f"blk.{layer}.ffn_down", INNER, WIDTH)
        m.norm(f"blk.{layer}.post_ffw_norm")
    m.norm("output_norm")
    m.matrix("output", WIDTH, VOCAB)
    m.finish()


def qwen3moe():
    n_experts, inner = 4, 16
    m = Model("qwen3moe", 2, 2)
    m.w.add_head_count_kv(HEADS_KV)
    m.w.add_expert_count(n_experts)
    m.w.add_expert_used_count(2)
    m.w.add_expert_feed_forward_length(inner)
    for layer in range(2):
        m.attention(layer, norms=True)
        m.norm(f"blk.{layer}.ffn_norm")
        m.matrix(f"blk.{layer}.ffn_gate_inp", WIDTH, n_experts)
        m.matrix(f"blk.{layer}.ffn_gate_exps", WIDTH, inner, more=(n_experts,))
        m.matrix(f"blk.{layer}.ffn_up_exps", WIDTH, inner, more=(n_experts,))
        m.matrix(f"blk.{layer}.ffn_down_exps", inner, WIDTH, more=(n_experts,))
    m.norm("output_norm")
    m.matrix("output", WIDTH, VOCAB)
    m.finish()


def lfm2():
    taps = 3
    m = Model("lfm2", 3, 3)
    m.w.add_head_count_kv([0, HEADS_KV, 0])
    m.w.add_shortconv_l_cache(taps)
    for layer in range(3):
        if layer == 1:
            m.attention(layer, norms=True)
        else:
            m.norm(f"blk.{layer}.attn_norm")
            m.matrix(f"blk.{layer}.shortconv.conv", taps, WIDTH)
            m.matrix(f"blk.{layer}.shortconv.in_proj", WIDTH, 3 * WIDTH)
            m.matrix(f"blk.{layer}.shortconv.out_proj", WIDTH, WIDTH)
        m.dense(layer)
    m.norm("token_embd_norm")
    m.finish()


def logits(path):
    lc.llama_backend_init()
    params = lc.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lc.llama_model_load_from_file(str(path).encode(), params)
    assert model, path
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_threads = CTX, CTX, CTX, 1
    params.type_k = params.type_v = 0
    params.flash_attn_type = 0
    context = lc.llama_init_from_model(model, params)
    batch = lc.llama_batch_init(len(PROMPT), 0, 1)
    batch.n_tokens = len(PROMPT)
    for i, token in enumerate(PROMPT):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert lc.llama_decode(context, batch) == 0
    rows = lc.llama_get_logits(context)
    array = np.ctypeslib.as_array(ctypes.cast(rows, ctypes.POINTER(ctypes.c_float)), (len(PROMPT), VOCAB)).copy()
    lc.llama_free(context)
    lc.llama_model_free(model)
    return array.astype(np.float32)


if __name__ == "__main__":
    glm4()
    qwen3moe()
    lfm2()
