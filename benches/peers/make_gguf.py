#!/usr/bin/env python3
"""Writes GGUF files of a published model's shape with random weights, and quantizes them with llama.cpp.

    make_gguf.py SHAPE DIR [TYPE...]     TYPE: Q4_K_M Q8_0 Q4_0 (default: all three), F16

The speed of inference does not depend on the values of the weights, so such a file measures what the published model
of that shape would. The vocabulary has the published size and made-up words: one word per byte, the rest unused.
"""
import argparse
import pathlib

import gguf
import numpy as np

# architecture, layers, width, feed-forward width, heads, KV heads, head width, rope base, vocabulary
SHAPES = {
    "smollm2-135m": ("llama", 30, 576, 1536, 9, 3, 64, 1e5, 49152),
    "qwen2.5-0.5b": ("qwen2", 24, 896, 4864, 14, 2, 64, 1e6, 151936),
    "qwen3-0.6b": ("qwen3", 28, 1024, 3072, 16, 8, 128, 1e6, 151936),
    "llama3.2-1b": ("llama", 16, 2048, 8192, 32, 8, 64, 5e5, 128256),
    "qwen3-1.7b": ("qwen3", 28, 2048, 6144, 16, 8, 128, 1e6, 151936),
    "tiny-qwen3": ("qwen3", 2, 256, 512, 4, 2, 64, 1e6, 512),
}
FILE_TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15}
N_CTX = 32768


def byte_words():
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    stand_in = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [stand_in[b] for b in range(256)]


def add_vocabulary(writer, n):
    words = byte_words()
    bytes_first = words + [f"[unused{i}]" for i in range(n - 257)] + ["<|endoftext|>"]
    normal, control, unused = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL, gguf.TokenType.UNUSED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(bytes_first)
    writer.add_token_types([normal] * 256 + [unused] * (n - 257) + [control])
    # llama.cpp refuses a vocabulary without merges; neither side of this one is ever a pair of bytes in real text.
    writer.add_token_merges([f"{words[0]} {words[1]}"])
    writer.add_eos_token_id(n - 1)
    writer.add_add_bos_token(False)


def add_tensors(writer, shape, rng):
    arch, layers, width, ffn, heads, kv_heads, head, _, n_vocab = shape

    def matrix(name, rows, columns):
        values = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        writer.add_tensor(name, values.astype(np.float16))

    def vector(name, n, mean):
        writer.add_tensor(name, (mean + 0.05 * rng.standard_normal(n)).astype(np.float32))

    matrix("token_embd.weight", n_vocab, width)  # also the output matrix, as in all of these models
    vector("output_norm.weight", width, 1.0)
    for i in range(layers):
        at = f"blk.{i}."
        vector(at + "attn_norm.weight", width, 1.0)
        vector(at + "ffn_norm.weight", width, 1.0)
        for name, n in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            matrix(f"{at}attn_{name}.weight", n * head, width)
            if arch == "qwen2":
                vector(f"{at}attn_{name}.bias", n * head, 0.0)
            if arch == "qwen3" and name != "v":
                vector(f"{at}attn_{name}_norm.weight", head, 1.0)
        matrix(at + "attn_output.weight", width, heads * head)
        matrix(at + "ffn_gate.weight", ffn, width)
        matrix(at + "ffn_up.weight", ffn, width)
        matrix(at + "ffn_down.weight", width, ffn)


def write_f16(name, path, seed):
    shape = SHAPES[name]
    arch, layers, width, ffn, heads, kv_heads, head, base, n_vocab = shape
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_name(f"{name}-random")
    writer.add_block_count(layers)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(base)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(n_vocab)
    add_vocabulary(writer, n_vocab)
    add_tensors(writer, shape, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source, target, file_type):
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[file_type]
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if failed:
        raise SystemExit(f"{target}: quantizing failed ({failed})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("types", nargs="*", metavar="TYPE", default=list(FILE_TYPES))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    unknown = [t for t in args.types if t not in FILE_TYPES and t != "F16"]
    if unknown:
        parser.error(f"unknown type {unknown[0]}; known: F16 {' '.join(FILE_TYPES)}")
    args.dir.mkdir(parents=True, exist_ok=True)
    f16 = args.dir / f"{args.shape}-F16.gguf"
    write_f16(args.shape, f16, args.seed)
    for file_type in args.types:
        if file_type != "F16":
            quantize(f16, args.dir / f"{args.shape}-{file_type}.gguf", file_type)
    if "F16" not in args.types:
        f16.unlink()


if __name__ == "__main__":
    main()
