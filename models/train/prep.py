#!/usr/bin/env python3
"""Corpus and dialogues -> tokenizer.json (where there is none), text.bin and chat.bin (uint16 ids) in --out.

    prep.py --corpus CORPUS --out out [--vocab 4096] [--book-mb 14]
"""
import argparse
import lzma
import os
import random

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import dialogues

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def items(path):
    """The items of a packed text; a line that holds one NUL byte stands between them."""
    with lzma.open(path, "rt", encoding="ascii") as f:
        text = f.read()
    return [t.strip() for t in text.split("\x00\n") if t.strip()]


def books(corpus, max_bytes):
    """Children's books first, then others in a fixed random order."""
    chosen, rest = items(f"{corpus}/children.txt.xz"), []
    if sum(map(len, chosen)) < max_bytes:
        rest = items(f"{corpus}/books.txt.xz")
        random.Random(0).shuffle(rest)
    out, size = [], 0
    for book in chosen + rest:
        if size < max_bytes:
            out.append(book)
            size += len(book)
    return out


def train_tokenizer(texts, n):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=n, special_tokens=SPECIAL, initial_alphabet=alphabet))
    return tok


def chat_ids(tok, turns):
    """A conversation in the model's own template."""
    start, stop = (tok.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>"))
    for i, turn in enumerate(turns):
        yield from [start, *tok.encode(("user", "assistant")[i % 2] + "\n").ids, *tok.encode(turn).ids, stop, *tok.encode("\n").ids]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--corpus", required=True)
    ap.add_argument("--out", default="out")
    ap.add_argument("--vocab", type=int, default=4096)
    ap.add_argument("--book-mb", type=float, default=14)
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    chosen, stories = books(a.corpus, a.book_mb * 1e6), items(f"{a.corpus}/stories.txt.xz")
    chats = [t.split("\n") for t in items(f"{a.corpus}/chat.txt.xz")]
    if not os.path.exists(f"{a.out}/tokenizer.json"):
        ours = [t for d in dialogues.split()[0] for t in d.turns]
        samples = [b[i:i + 2000] for b in chosen for i in range(0, len(b), 8000)]
        train_tokenizer(ours * 4 + [t for d in chats for t in d] + stories + samples, a.vocab).save(f"{a.out}/tokenizer.json")
    tok = Tokenizer.from_file(f"{a.out}/tokenizer.json")
    end = tok.token_to_id("<|endoftext|>")
    text = [i for t in chosen + stories * 2 for i in [*tok.encode(t).ids, end]]
    chat = [i for d in chats for i in [*chat_ids(tok, d), end]]
    for name, ids in (("text", text), ("chat", chat)):
        np.array(ids, dtype=np.uint16).tofile(f"{a.out}/{name}.bin")
    print(f"{len(chosen)} books, {len(stories)} stories, {len(chats)} chats: {len(text)} and {len(chat)} ids")


if __name__ == "__main__":
    main()
