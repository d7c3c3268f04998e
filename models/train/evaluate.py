#!/usr/bin/env python3
"""Answer opening lines that no one trained on, and score the answers: evaluate.py CHECKPOINT.pt TOKENIZER.json OUT.tsv

Ways: the model alone, the model with the exemplar that the engine would show, and the written collection (its best fitting reply, and
whether the engine would take it). The held-out dialogues are left out of the collection here. The table has a row for each opening
and way; the scores stand on standard output. Scores cannot see sense: read the table.
"""
import argparse
import random
import re
from collections import Counter

import torch

import dialogues
import retrieval
import sample

WHOLE_FROM = 0.45  # as in src/chat/exemplars
SEED = 7


def openings(n):
    """`blind.txt`, which nobody wrote dialogues for, then held-out openings in a fixed random order."""
    blind = (dialogues.DATA / "blind.txt").read_text(encoding="utf-8").split("\n")
    held_out = [d.turns[0] for d in dialogues.split()[1] if not d.facts]
    random.Random(SEED).shuffle(held_out)
    return ([line.strip() for line in blind if line.strip()] + held_out)[:n]


def known_words(train):
    return {w for d in train for t in (*d.turns, *d.wordings) for w in retrieval.words(t)}


def stems(text):
    return {retrieval.stem(w) for w in retrieval.words(text) if w not in retrieval.STOP}


def four_grams(text):
    w = retrieval.words(text)
    return [tuple(w[i:i + 4]) for i in range(len(w) - 3)]


def scores(asked, replies, ended, words, topics):
    """Shares of the replies that end properly, speak of the matter, have only words, stay short, and do not repeat."""
    n = len(replies)
    share = lambda flags: round(sum(flags) / n, 3)
    across = Counter(g for r in replies for g in set(four_grams(r)))
    on_topic = [bool(stems(a) & stems(r)) or bool(topics(a) & stems(r)) for a, r in zip(asked, replies)]
    return {
        "ends properly": share(e and bool(re.search(r"[.?!\"']$", r)) for r, e in zip(replies, ended)),
        "speaks of the matter": share(on_topic),
        "only known words": share(all(w in words for w in retrieval.words(r)) for r in replies),
        "no four words twice": share(len(four_grams(r)) == len(set(four_grams(r))) for r in replies),
        "no stock phrase": share(not any(across[g] > max(2, n // 20) for g in four_grams(r)) for r in replies),
        "under 90 words": share(len(r.split()) < 90 for r in replies),
        "distinct": round(len(set(replies)) / n, 3),
    }


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("checkpoint")
    ap.add_argument("tokenizer")
    ap.add_argument("table")
    ap.add_argument("--n", type=int, default=200)
    ap.add_argument("--temp", type=float, default=0.7)
    a = ap.parse_args()
    torch.set_num_threads(1)
    train = dialogues.split()[0]
    index = retrieval.Index([(o, d.turns[1]) for d in train if not d.facts for o in (d.turns[0], *d.wordings)])
    model, tok = sample.load(a.checkpoint, a.tokenizer)
    asked = openings(a.n)
    near = [index.fitting(line) or [(0.0, None)] for line in asked]
    written = [index.exchanges[n[0][1]][1] if n[0][1] is not None else "" for n in near]
    # What the replies to the three likest openings speak of counts as the topic, too.
    topics = lambda line: {s for _, i in index.likest(line, 3) for s in stems(index.exchanges[i][1])}
    examples = [index.example(line, sample.EXAMPLE_FROM) for line in asked]
    ways = {"written": [(w, True) for w in written]}
    for way, shown in (("model with exemplar", examples), ("model alone", [None] * len(asked))):
        ways[way] = []
        for i in range(0, len(asked), 25):
            prompts = [sample.prompt([line], example=e) for line, e in zip(asked[i:i + 25], shown[i:i + 25])]
            ways[way] += sample.answer(model, tok, prompts, a.temp, SEED + i)
    words = known_words(train)
    with open(a.table, "w", encoding="utf-8") as f:
        f.write("opening\tfit\tway\treply\n")
        for way, answers in ways.items():
            for line, n, (reply, _) in zip(asked, near, answers):
                f.write(f"{line}\t{n[0][0]:.2f}\t{way}\t{' '.join(reply.split())}\n")
            print(way, scores(asked, [r for r, _ in answers], [e for _, e in answers], words, topics), flush=True)
    taken = sum(n[0][0] >= WHOLE_FROM for n in near)
    print(f"of {len(asked)} openings the engine takes the written reply to {taken}")


if __name__ == "__main__":
    main()
