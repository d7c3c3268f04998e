#!/usr/bin/env python3
"""Answer lines from standard input: sample.py CHECKPOINT.pt TOKENIZER.json [--temp 0.4] [--alone]"""
import argparse
import sys

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import retrieval
from model import Config, Llama

MIN_P, TOP_K, TOP_P, REPEAT = 0.05, 40, 0.9, 1.1  # the engine's defaults for this model (src/chat/prompt.rs)
REPEAT_LAST = 64
MAX_TOKENS = 160
EXAMPLE_FROM = 0.25  # as in src/chat/exemplars


def load(checkpoint, tokenizer):
    saved = torch.load(checkpoint, map_location="cpu")
    model = Llama(Config(**saved["config"])).eval()
    model.load_state_dict(saved["model"])
    return model, Tokenizer.from_file(tokenizer)


def prompt(turns, facts=None, example=None):
    """The template in words: an exemplar, facts, the turns, and the parent's turn opened."""
    parts = ([("example", "\n".join(example))] if example else []) + ([("system", facts)] if facts else [])
    parts += [(("user", "assistant")[i % 2], t) for i, t in enumerate(turns)]
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in parts) + "<|im_start|>assistant\n"


def choose(logits, said, temp, rng):
    """One token, chosen as the engine's sampler does."""
    logits = logits.float().clone()
    recent = torch.tensor(sorted(set(said[-REPEAT_LAST:])))
    logits[recent] = torch.where(logits[recent] > 0, logits[recent] / REPEAT, logits[recent] * REPEAT)
    best, ids = logits.topk(TOP_K)
    p = F.softmax(best, -1)
    keep = (p.cumsum(-1) - p < TOP_P) & (p >= MIN_P * p[0])
    p = F.softmax(best[keep] / max(temp, 1e-3), -1)
    return int(ids[keep][torch.multinomial(p, 1, generator=rng)])


@torch.no_grad()
def answer(model, tok, prompts, temp=0.4, seed=0):
    """Replies to prompts, all at once. (text, ended by itself) of each."""
    rng = torch.Generator().manual_seed(seed)
    stop = tok.token_to_id("<|im_end|>")
    rows = [tok.encode(p).ids for p in prompts]
    starts, ended = [len(r) for r in rows], [False] * len(rows)
    for _ in range(MAX_TOKENS):
        open_rows = [i for i, r in enumerate(rows) if not ended[i] and len(r) < model.c.ctx]
        if not open_rows:
            break
        width = max(len(rows[i]) for i in open_rows)
        x = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in open_rows])
        logits = model(x)
        for n, i in enumerate(open_rows):
            token = choose(logits[n, len(rows[i]) - 1], rows[i], temp, rng)
            ended[i] = token == stop
            rows[i].append(token)
    return [(tok.decode(r[s:]).strip(), e) for r, s, e in zip(rows, starts, ended)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("tokenizer")
    ap.add_argument("--temp", type=float, default=0.4)
    ap.add_argument("--alone", action="store_true", help="without exemplars")
    a = ap.parse_args()
    model, tok = load(a.checkpoint, a.tokenizer)
    index = None if a.alone else retrieval.shipped()
    for line in map(str.strip, sys.stdin):
        example = index and index.example(line, EXAMPLE_FROM)
        print(f"U: {line}\nP: {answer(model, tok, [prompt([line], example=example)], a.temp)[0][0]}\n")


if __name__ == "__main__":
    main()
