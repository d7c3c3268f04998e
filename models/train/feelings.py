#!/usr/bin/env python3
"""Train what tells the feeling of a message, from data/feelings.txt (lines under `# feeling` headings): cross-validate, then write
../../assets/feelings.tsv. Multinomial logistic regression over stems, pairs and triples of neighbouring words, with AdaGrad; pure Python,
under a minute.

    python feelings.py            # the file
    python feelings.py --folds    # five folds and the confusions before
"""
import math
import random
import sys
from collections import Counter, defaultdict

import retrieval
from dialogues import DATA

ASSETS = DATA.parents[2] / "assets"
EPOCHS, RATE, DECAY = 12, 0.15, 1e-3
FOLDS = 5
NEAR = ("joy pride excited thanks love", "sad loss lonely missing", "hurt angry jealous", "worried", "guilty", "tired ill", "torn", "neutral bored")
MOST = 45
SCALE = 20  # weights are stored in twentieths,
SMALLEST = 3  # and not at all below this


def lines(path=DATA / "feelings.txt"):
    feeling = None
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("# "):
            feeling = line[2:]
        elif line:
            yield line, feeling


def word_classes(path=DATA / "feeling-words.txt"):
    rows = [line.split(": ") for line in path.read_text(encoding="utf-8").strip().split("\n")]
    return {name: words.split() for name, words in rows}


def classes_of():
    out = defaultdict(list)
    for name, words in word_classes().items():
        for stem in {said(w) for w in words}:
            out[stem].append(name)
    return out


def said(word):
    return word if word in retrieval.STOP else retrieval.stem(word)


CLASSES = classes_of()
TURNING = set("not never no dont cant wont didnt doesnt isnt wasnt havent hasnt couldnt without hardly nobody".split())
REACH = 3  # a "not" turns so many words after it


def features(text):
    """As `src/chat/exemplars/feeling.rs` has them."""
    words = retrieval.words(text)
    stems = [said(w) for w in words]
    around = ["^", *stems, "$"]
    out = set(stems)
    out.update(" ".join(two) for two in zip(around, around[1:]))
    found = []
    for i, stem in enumerate(stems):
        turned = any(w in TURNING for w in words[max(0, i - REACH):i])
        for name in CLASSES.get(stem, ()):
            out.add("@" + name)
            out.add(("-" if turned else "+") + name)
            found.append(name)
    kinds = sorted(set(found))
    out.update(f"{a}&{b}" for i, a in enumerate(kinds) for b in kinds[i + 1:])
    out.update(f"{w}@{name}" for w in ("my", "i", "we") if w in words or "im" in words and w == "i" for name in kinds)
    if "!" in text:
        out.add("!")
    if "?" in text:
        out.add("?")
    return sorted(out)


def scores(weights, names, found):
    norm = math.sqrt(len(found))
    out = [sum(weights[f][i] for f in found if f in weights) / norm for i in range(len(names))]
    return out


def softmax(xs):
    top = max(xs)
    es = [math.exp(x - top) for x in xs]
    return [e / sum(es) for e in es]


def train(rows, names, seed=0):
    n = len(names)
    weights = defaultdict(lambda: [0.0] * n)
    seen = defaultdict(lambda: [1e-2] * n)
    data = [(features(text), names.index(feeling)) for text, feeling in rows]
    draw = random.Random(seed)
    for _ in range(EPOCHS):
        draw.shuffle(data)
        for found, wanted in data:
            norm = math.sqrt(len(found))
            for f in found:
                weights[f]
            p = softmax(scores(weights, names, found))
            for i in range(n):
                error = p[i] - (i == wanted)
                if abs(error) < 1e-3:
                    continue
                for f in found:
                    g = error / norm + DECAY * weights[f][i]
                    seen[f][i] += g * g
                    weights[f][i] -= RATE * g / math.sqrt(seen[f][i])
    return weights


def folds(rows, names, more=()):
    rows = rows[:]
    random.Random(1).shuffle(rows)
    right, wrong = 0, Counter()
    for k in range(FOLDS):
        weights = train([r for i, r in enumerate(rows) if i % FOLDS != k] * 2 + list(more), names)
        for text, feeling in rows[k::FOLDS]:
            s = scores(weights, names, features(text))
            found = names[s.index(max(s))]
            right += found == feeling
            if found != feeling:
                wrong[feeling, found] += 1
    return right / len(rows), wrong


def capped(rows):
    """Not more than `MOST` of a feeling: the collection has many worries, and worries are not commoner for that."""
    n = Counter()
    for text, feeling in rows:
        n[feeling] += 1
        if n[feeling] <= MOST:
            yield text, feeling


def report(rows, names, more):
    share, wrong = folds(rows, names, more)
    near = {name: i for i, group in enumerate(NEAR) for name in group.split()}
    far = sum(n for (a, b), n in wrong.items() if near[a] != near[b])
    glad = sum(n for (a, b), n in wrong.items() if (near[a] == 0) != (near[b] == 0))
    print(f"{len(rows)} lines, {len(names)} feelings, {FOLDS} folds: {share:.3f} right, {1 - far / len(rows):.3f} the same or a near one, "
          f"{1 - glad / len(rows):.3f} glad or not")
    print(", ".join(f"{a} for {b} {n}" for (b, a), n in wrong.most_common(12)))


def main():
    rows = list(lines())
    names = sorted({feeling for _, feeling in rows})
    more = list(capped(lines(DATA / "feelings-more.txt")))
    if "--folds" in sys.argv:
        report(rows, names, more)
    weights = train(rows + rows + more, names)
    with open(ASSETS / "feelings.tsv", "w", encoding="utf-8") as out:
        out.write("\t".join(names) + "\n")
        for name, words in word_classes().items():
            out.write(f"={name}\t{' '.join(words)}\n")
        for feature in sorted(weights):
            ints = [round(w * SCALE) for w in weights[feature]]
            kept = [f"{i}:{w}" for i, w in enumerate(ints) if abs(w) >= SMALLEST]
            if kept:
                out.write(feature + "\t" + " ".join(kept) + "\n")


if __name__ == "__main__":
    main()
