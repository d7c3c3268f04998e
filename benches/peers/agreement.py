#!/usr/bin/env python3
"""Compares the numbers, not the speed: perplexity and divergence of both engines on the same file and text.

    DIR/native/bin/python agreement.py --ours target/release/mommygpt -m FILE.gguf TEXT [-c 512] [--windows 40]

The reference is llama.cpp on the same weights, dequantized to f32, with f32 keys and values and plain attention.
Perplexity is computed as llama-perplexity does: windows that do not overlap, BOS first where the model wants it, the
second half of each window counts. Divergence is that of the reference's distribution from an engine's, at the same
positions; top-1 is how often both name the same likeliest token.
"""
import argparse
import ctypes
import pathlib
import subprocess
import tempfile

import llama_cpp as lib
import numpy as np

LOG = lib.llama_log_callback(lambda level, text, data: None)
F32, F16 = 0, 1  # ggml's numbers for the types


def dequantize(source, target):
    params = lib.llama_model_quantize_default_params()
    params.ftype = 0  # all f32
    params.allow_requantize = True
    if lib.llama_model_quantize(source.encode(), target.encode(), params):
        raise SystemExit(f"{source}: llama.cpp cannot write it as f32")


class Peer:
    """llama.cpp on one file; `exact` takes f32 keys and values and plain attention."""

    def __init__(self, path, window, exact):
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = not exact
        self.model = lib.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.n_vocab = lib.llama_vocab_n_tokens(self.vocab)
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = window
        params.n_threads = params.n_threads_batch = 2
        params.flash_attn_type = 0 if exact else 1
        params.type_k = params.type_v = F32 if exact else F16
        self.ctx = lib.llama_init_from_model(self.model, params)
        self.batch = lib.llama_batch_init(window, 0, 1)

    def tokenize(self, text):
        data = text.encode()
        ids = (lib.llama_token * (len(data) + 8))()
        n = lib.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, False)
        return list(ids[:n])

    def bos(self):
        """BOS, where the model wants texts to begin with it."""
        return lib.llama_vocab_bos(self.vocab) if lib.llama_vocab_get_add_bos(self.vocab) else None

    def logits(self, ids):
        lib.llama_memory_clear(lib.llama_get_memory(self.ctx), True)
        b = self.batch
        b.n_tokens = len(ids)
        for i, token in enumerate(ids):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, i, 1, True
            b.seq_id[i][0] = 0
        if lib.llama_decode(self.ctx, b):
            raise SystemExit("llama_decode failed")
        rows = np.ctypeslib.as_array(lib.llama_get_logits(self.ctx), shape=(len(ids), self.n_vocab))
        return rows.astype(np.float64)


def log_softmax(rows):
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


class Tally:
    def __init__(self):
        self.nll, self.divergence, self.same = [], [], []

    def add(self, log_p, next_ids, reference):
        self.nll.extend(-log_p[np.arange(len(next_ids)), next_ids])
        if reference is not None:
            self.divergence.extend((np.exp(reference) * (reference - log_p)).sum(axis=1))
            self.same.extend(log_p.argmax(axis=1) == reference.argmax(axis=1))

    def row(self, name, base):
        perplexity = np.exp(np.mean(self.nll))
        shown = f"| {name} | {perplexity:.4f} | {100 * (perplexity / base - 1):+.3f}% |"
        if not self.divergence:
            return shown + " | | |"
        return (
            f"{shown} {np.mean(self.divergence):.2e} | {np.quantile(self.divergence, 0.999):.2e}"
            f" | {100 * np.mean(self.same):.2f}% |"
        )


def ours(args, text, n_tokens, logits):
    """Our own command on the same text: its perplexity, and its logits as (tokens, vocabulary)."""
    command = [args.ours, "perplexity", "-m", args.model, str(text), "-c", str(args.ctx), "--logits", str(logits)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed: {done.stderr.strip()}")
    rows = np.load(logits, mmap_mode="r")
    if len(rows) != n_tokens:
        raise SystemExit(f"mommygpt cut the text into {len(rows)} tokens of windows, llama.cpp into {n_tokens}")
    estimate = done.stdout.rsplit("PPL = ", 1)[1].split()[0]
    return float(estimate), rows


def main():
    lib.llama_log_set(LOG, ctypes.c_void_p(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--ours", required=True)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-c", "--ctx", type=int, default=512)
    parser.add_argument("--windows", type=int, default=40, help="how much of the text; logits of all are kept on disk")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(args, pathlib.Path(folder))


def compare(args, folder):
    f32 = str(folder / "f32.gguf")
    dequantize(args.model, f32)
    exact, peer = Peer(f32, args.ctx, True), Peer(args.model, args.ctx, False)
    text = args.text.read_text(encoding="utf-8")
    ids = peer.tokenize(text)
    # Cut the text where the last window ends, at a place where both must cut words alike.
    while len(ids) >= (args.windows + 1) * args.ctx:
        text = text[: text.rfind("\n", 0, len(text) * (args.windows * args.ctx + args.ctx // 2) // len(ids))]
        ids = peer.tokenize(text)
    (folder / "text").write_text(text, encoding="utf-8")
    n_windows = len(ids) // args.ctx
    printed, rows = ours(args, folder / "text", n_windows * args.ctx, folder / "logits.npy")
    tallies = {name: Tally() for name in ("llama.cpp, f32", "llama.cpp", "mommygpt")}
    for i in range(n_windows):
        window = ids[i * args.ctx : (i + 1) * args.ctx]
        following = window[args.ctx // 2 + 1 :]
        if peer.bos() is not None:
            window[0] = peer.bos()
        scored = slice(args.ctx // 2, args.ctx - 1)
        reference = log_softmax(exact.logits(window)[scored])
        tallies["llama.cpp, f32"].add(reference, following, None)
        tallies["llama.cpp"].add(log_softmax(peer.logits(window)[scored]), following, reference)
        own = rows[i * args.ctx : (i + 1) * args.ctx][scored].astype(np.float64)
        tallies["mommygpt"].add(log_softmax(own), following, reference)
    print(f"{pathlib.Path(args.model).name}, {n_windows} windows of {args.ctx} tokens")
    print(f"mommygpt perplexity prints {printed:.4f}\n")
    print("| engine | perplexity | against f32 | mean divergence, nats | 99.9% | top-1 as f32 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    base = np.exp(np.mean(tallies["llama.cpp, f32"].nll))
    for name, tally in tallies.items():
        print(tally.row(name, base))


if __name__ == "__main__":
    main()
