#!/usr/bin/env python3
"""Train on the CPU or one GPU, by steps, so that a machine that pauses loses nothing but time.

    train.py pre  --out out --preset v0 --steps 4000      next-word prediction on books, stories, everyday chat
    train.py tune --out out --steps 2000                  on the dialogues, from out/pre.pt; the loss mostly on the parent's words

Stopped or killed, the same line goes on from the last checkpoint (out/PHASE.state.pt); another --steps stretches or shortens the
rest of the cosine. out/PHASE.pt holds the averaged weights, which are the ones to use; out/PHASE.log.tsv the curve.
"""
import argparse
import math
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import dialogues
import retrieval
from model import PRESETS, Config, Llama
from rows import NEAR_ENOUGH, Rows, pack

WARM_UP = 40
AVERAGE = 0.995  # of the weights, per step
SAVE_EVERY, CHECK_EVERY, PRINT_EVERY = 20, 100, 5
PLAIN_SHARE = 0.06  # of the windows in tune that are still stories and everyday chat


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("phase", choices=["pre", "tune"])
    ap.add_argument("--out", default="out")
    ap.add_argument("--preset", default="v0", choices=PRESETS)
    ap.add_argument("--steps", type=int, required=True)
    ap.add_argument("--lr", type=float)
    ap.add_argument("--batch", type=int, default=20)
    ap.add_argument("--width", type=int, default=384)
    ap.add_argument("--seed", type=int, default=0)
    return ap.parse_args()


class Data:
    """Batches of one phase. A resumed run draws other rows, not the first ones again."""

    def __init__(self, a, tok, done):
        seed = a.seed + 1000 * done
        self.a, self.rng, self.np = a, random.Random(seed), np.random.default_rng(seed)
        self.text, self.chat = (np.fromfile(f"{a.out}/{n}.bin", dtype=np.uint16) for n in ("text", "chat"))
        train, held_out = dialogues.split()
        self.held_out = validation_rows(train, held_out, tok)
        if a.phase == "tune":
            rows = Rows(train, tok, seed, a.width)
            rows.find_neighbours()
            self.windows = pack(rows.epochs(), a.width, tok.token_to_id("<|endoftext|>"))

    def plain(self, text_share):
        src = self.text if self.rng.random() < text_share else self.chat
        j = self.rng.randrange(len(src) - self.a.width - 1)
        w = src[j:j + self.a.width + 1].astype(np.int64)
        return w[:-1], w[1:].copy()

    def window(self):
        if self.a.phase == "pre":
            return self.plain(0.75)
        if self.rng.random() < PLAIN_SHARE:
            return self.plain(0.5)
        ids, mask = next(self.windows)
        ids = np.array(ids, dtype=np.int64)
        y = ids[1:].copy()
        y[self.np.random(self.a.width) >= np.array(mask[1:])] = -100
        return ids[:-1], y

    def batch(self):
        xs, ys = zip(*(self.window() for _ in range(self.a.batch)))
        return torch.from_numpy(np.stack(xs)), torch.from_numpy(np.stack(ys))


def validation_rows(train, held_out, tok, n=300):
    """Held-out exchanges as the engine puts them: an opening with the nearest training exchange, where one is near, a later one
    with none. What earlier weights have not seen comes first."""
    asked, index = Rows(held_out, tok, max_ids=500), retrieval.Index([d.turns[:2] for d in train])
    out = []
    for d, i in asked.exchanges[:n]:
        x = held_out[d]
        near = index.likest(x.turns[0], 1) if not i else []
        example = index.exchanges[near[0][1]] if near and near[0][0] >= NEAR_ENOUGH else None
        out.append(asked.encode(example, x.facts, list(x.turns[:i + 2])))
    return out


@torch.no_grad()
def held_out_loss(model, rows, dev):
    total, n = 0.0, 0
    for ids, mask in rows:
        x = torch.tensor([ids], device=dev)
        y = x[0, 1:].clone()
        y[torch.tensor(mask[1:], device=dev) < 1] = -100
        total += F.cross_entropy(model(x)[0, :-1].float(), y, ignore_index=-100, reduction="sum").item()
        n += int((y != -100).sum())
    return total / max(n, 1)


def learning_rate(step, steps, top):
    return top * min(1, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1, step / steps)))


class Run:
    """Model, averaged model and optimizer, kept together in one checkpoint."""

    def __init__(self, a, dev):
        self.state = Path(a.out, f"{a.phase}.state.pt")
        saved = torch.load(self.state, map_location=dev) if self.state.exists() else None
        first = saved or (torch.load(f"{a.out}/pre.pt", map_location=dev) if a.phase == "tune" else None)
        self.config = Config(**first["config"]) if first else PRESETS[a.preset]
        self.model, self.average = Llama(self.config).to(dev), Llama(self.config).to(dev)
        if first:
            self.model.load_state_dict(first["model"])
        self.average.load_state_dict((saved or {}).get("average") or self.model.state_dict())
        matrices, rest = ([p for p in self.model.parameters() if (p.dim() == 2) == m] for m in (True, False))
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.opt = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), fused=True)
        self.step = 0
        if saved:
            self.opt.load_state_dict(saved["opt"])
            self.step = saved["step"]

    @torch.no_grad()
    def average_in(self):
        keep = min(AVERAGE, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - keep)

    def save(self, out):
        state = {"model": self.model.state_dict(), "average": self.average.state_dict(), "opt": self.opt.state_dict(),
                 "config": self.config.dict(), "step": self.step}
        torch.save(state, self.state.with_suffix(".new"))
        os.replace(self.state.with_suffix(".new"), self.state)
        torch.save({"model": self.average.state_dict(), "config": self.config.dict(), "step": self.step}, out)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    if dev == "cpu":
        torch.set_num_threads(os.cpu_count())
    run = Run(a, dev)
    data = Data(a, Tokenizer.from_file(f"{a.out}/tokenizer.json"), run.step)
    top = a.lr or (2e-3 if a.phase == "pre" else 1e-3)
    fast = torch.compile(run.model)
    log = open(f"{a.out}/{a.phase}.log.tsv", "a", buffering=1)
    print(f"{sum(p.numel() for p in run.model.parameters()) / 1e6:.1f} M parameters on {dev}, from step {run.step} of {a.steps}", flush=True)
    began, first, mean = time.time(), run.step, None
    while run.step < a.steps:
        for g in run.opt.param_groups:
            g["lr"] = learning_rate(run.step, a.steps, top)
        x, y = (t.to(dev) for t in data.batch())
        with torch.autocast(dev, torch.bfloat16):
            loss = F.cross_entropy(fast(x).reshape(-1, run.config.vocab).float(), y.reshape(-1), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        run.opt.step()
        run.opt.zero_grad(set_to_none=True)
        run.step += 1
        run.average_in()
        mean = loss.item() if mean is None else 0.97 * mean + 0.03 * loss.item()
        if run.step % PRINT_EVERY == 0:
            pace = (time.time() - began) / (run.step - first)
            print(f"{a.phase} step {run.step} of {a.steps}, loss {mean:.3f}, {x.numel() / pace:.0f} tokens/s, "
                  f"{pace * (a.steps - run.step) / 60:.0f} min left", flush=True)
        if run.step % SAVE_EVERY == 0 or run.step == a.steps:
            run.save(f"{a.out}/{a.phase}.pt")
        if run.step % CHECK_EVERY == 0 or run.step == a.steps:
            held = held_out_loss(run.average, data.held_out, dev)
            log.write(f"{run.step}\t{mean:.4f}\t{held:.4f}\n")
            print(f"held-out loss on the parent's words {held:.3f}", flush=True)


if __name__ == "__main__":
    main()
