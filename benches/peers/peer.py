#!/usr/bin/env python3
"""Measures llama.cpp on one GGUF file through its C interface, with llama-bench's flags and field names.

    peer.py -m FILE [-p 512] [-n 128] [-d 0] [-np 1] [-r 5] [-t 2] [-ub 512] [--repack 0|1] [--fa 0|1]

`-p` and `-n` are tests of their own, each at every depth `-d`; `-n` also for every number of sequences `-np` that
decode side by side. One JSON object a line. The time of a `-p` test ends when the last token's logits are there, so
`-p 32 -d 2048` is the time to the first token of 32 new tokens in a chat of 2,048 that is cached already.
A depth is evaluated once; before each repetition the cache is cut back to it. One repetition before the first is not
counted.
"""
import argparse
import ctypes
import json
import resource
import statistics
import sys
import time

import llama_cpp as lib
import numpy as np

LOG = lib.llama_log_callback(lambda level, text, data: None)


class Peer:
    """A model and one context, large enough for every test asked for."""

    def __init__(self, args):
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = bool(args.repack)
        started = time.perf_counter_ns()
        self.model = lib.llama_model_load_from_file(args.model.encode(), params)
        if not self.model:
            raise SystemExit(f"{args.model}: llama.cpp cannot load it")
        self.load_ns = time.perf_counter_ns() - started
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        self.args = args
        self.rng = np.random.default_rng(1)

    def open(self, n_seq, n_ctx):
        params = lib.llama_context_default_params()
        params.n_ctx = n_seq * (-(-n_ctx // 256) * 256)
        params.n_seq_max = n_seq
        params.n_batch, params.n_ubatch = 2048, self.args.ubatch
        params.n_threads = params.n_threads_batch = self.args.threads
        params.flash_attn_type = self.args.fa
        params.no_perf = True
        self.ctx = lib.llama_init_from_model(self.model, params)
        if not self.ctx:
            raise SystemExit(f"{self.args.model}: llama.cpp gives no context of {params.n_ctx}")
        self.batch = lib.llama_batch_init(2048, 0, 1)

    def close(self):
        lib.llama_batch_free(self.batch)
        lib.llama_free(self.ctx)

    def decode(self, rows):
        """One batch of (token, position, sequence, logits wanted)."""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, pos, seq, wanted) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, pos, 1, wanted
            b.seq_id[i][0] = seq
        if lib.llama_decode(self.ctx, b) != 0:
            raise SystemExit(f"{self.args.model}: llama_decode failed")

    def prompt(self, n, first, seq):
        """`n` random tokens at positions from `first`; logits of the last."""
        ids = self.rng.integers(0, self.n_vocab, n).tolist()
        rows = [(t, first + i, seq, i == n - 1) for i, t in enumerate(ids)]
        for at in range(0, n, 2048):
            self.decode(rows[at : at + 2048])

    def generate(self, n, first, n_seq):
        ids = self.rng.integers(0, self.n_vocab, (n, n_seq)).tolist()
        for i, step in enumerate(ids):
            self.decode([(t, first + i, seq, True) for seq, t in enumerate(step)])
            lib.llama_get_logits_ith(self.ctx, n_seq - 1)

    def measure(self, n_prompt, n_gen, depth, n_seq):
        self.open(n_seq, depth + n_prompt + n_gen)
        memory = lib.llama_get_memory(self.ctx)
        for seq in range(n_seq):
            if depth:
                self.prompt(depth, 0, seq)
        samples = []
        for i in range(self.args.repetitions + 1):
            for seq in range(n_seq):
                lib.llama_memory_seq_rm(memory, seq, depth, -1)
            lib.llama_synchronize(self.ctx)
            started = time.perf_counter_ns()
            if n_prompt:
                self.prompt(n_prompt, depth, 0)
            else:
                self.generate(n_gen if i else min(n_gen, 8), depth, n_seq)
            lib.llama_synchronize(self.ctx)
            if i:
                samples.append(time.perf_counter_ns() - started)
        self.close()
        return samples


def record(peer, args, n_prompt, n_gen, depth, n_seq, samples):
    speeds = [1e9 * (n_prompt + n_gen * n_seq) / ns for ns in samples]
    spread = statistics.stdev if len(samples) > 1 else lambda _: 0.0
    return {
        "engine": "llama.cpp",
        "version": lib.__version__,
        "model_filename": args.model,
        "n_threads": args.threads,
        "n_ubatch": args.ubatch,
        "flash_attn": bool(args.fa),
        "repack": bool(args.repack),
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": depth,
        "n_parallel": n_seq,
        "avg_ns": statistics.mean(samples),
        "stddev_ns": spread(samples),
        "avg_ts": statistics.mean(speeds),
        "stddev_ts": spread(speeds),
        "samples_ns": samples,
        "samples_ts": speeds,
        "load_ms": peer.load_ns / 1e6,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def numbers(text):
    return [int(n) for n in text.split(",") if n]


def main():
    lib.llama_log_set(LOG, ctypes.c_void_p(0))
    if "--system-info" in sys.argv:
        print("llama-cpp-python", lib.__version__, lib.llama_print_system_info().decode())
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-p", "--n-prompt", type=numbers, default=[512])
    parser.add_argument("-n", "--n-gen", type=numbers, default=[128])
    parser.add_argument("-d", "--n-depth", type=numbers, default=[0])
    parser.add_argument("-np", "--parallel", type=numbers, default=[1])
    parser.add_argument("-r", "--repetitions", type=int, default=5)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-ub", "--ubatch", type=int, default=512)
    parser.add_argument("--repack", type=int, choices=[0, 1], default=1)
    parser.add_argument("--fa", type=int, choices=[0, 1], default=1)
    args = parser.parse_args()
    peer = Peer(args)
    tests = [(p, 0, d, 1) for d in args.n_depth for p in args.n_prompt if p]
    tests += [(0, n, d, s) for d in args.n_depth for s in args.parallel for n in args.n_gen if n]
    for test in tests:
        print(json.dumps(record(peer, args, *test, peer.measure(*test))), flush=True)


if __name__ == "__main__":
    main()
