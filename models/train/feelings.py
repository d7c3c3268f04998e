#!/usr/bin/env python3
"""Train what tells the feeling of a message, from data/feelings.txt (lines under `# feeling` headings): cross-validate, then write
../../assets/feelings.bin (weights) and ../../assets/feelings.tsv (names, scale, words of the classes, and lines with the feeling found,
for a test that both sides count alike). Multinomial logistic regression over hashed stems, pairs of neighbouring stems, classes of words
and pieces of words, with AdaGrad; half a minute.

    python feelings.py            # the files
    python feelings.py --folds    # five folds, how sure is how right, and the confusions before
"""
import random
import sys
from collections import Counter, defaultdict

import numpy as np

import retrieval
from dialogues import DATA

ASSETS = DATA.parents[2] / "assets"
EPOCHS, RATE, DECAY = 10, 0.2, 3e-4
FOLDS = 5
SLOTS = 1 << 14  # features are hashed into so many
PIECE = 4  # letters of a piece of a word, with `<` and `>` at its ends
SHARPER = 1.0  # the scores are multiplied by it, so that a share of 0.7 is right in seven of ten
LEVEL = 127  # the largest stored weight
N_PROBES = 60  # lines for the test
VALENCES = {
    "good": "joy pride excited relief thanks love",
    "hard": "sad letdown loss lonely missing hurt angry worried guilty shame tired ill jealous",
    "even": "bored funny neutral",
    "asks": "torn wish advice",
}
VALENCE = {name: valence for valence, names in VALENCES.items() for name in names.split()}
TURNS = "but though however except only yet forgot unfortunately".split()
LAUGHS = "lol lmao rofl haha hahaha hehe".split()
TURNING = set("not never no dont cant wont didnt doesnt isnt wasnt havent hasnt couldnt without hardly nobody arent wouldnt".split())
REACH = 3  # a "not" turns so many words after it


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


def said(word):
    return word if word in retrieval.STOP else retrieval.stem(word)


def classes_of():
    out = defaultdict(list)
    for name, words in word_classes().items():
        for stem in {said(w) for w in words}:
            out[stem].append(name)
    return out


CLASSES = classes_of()


def parts(text):
    """The words before the first turn of a message and those after the last: a "but", or the end of a sentence."""
    chunks = text.split()
    plain = ["".join(retrieval.words(c)) for c in chunks]
    cuts = {i for i, w in enumerate(plain) if w in TURNS} | {i + 1 for i, c in enumerate(chunks[:-1]) if c[-1] in ".!?"}
    cuts = [c for c in sorted(cuts) if 0 < c < len(chunks) - 1]
    return (chunks[:cuts[0]], chunks[cuts[-1]:]) if cuts else ([], [])


def features(text):
    """As `src/chat/exemplars/feeling.rs` has them."""
    words = retrieval.words(text)
    stems = [said(w) for w in words]
    around = ["^", *stems, "$"]
    out = set(stems)
    out.update(" ".join(two) for two in zip(around, around[1:]))
    out.add("^^ " + " ".join(words[:2]))
    for word in words:
        piece = f"<{word}>"
        out.update("~" + piece[i:i + PIECE] for i in range(len(piece) - PIECE + 1))
    kinds = set()
    for i, stem in enumerate(stems):
        turned = any(w in TURNING for w in words[max(0, i - REACH):i])
        for name in CLASSES.get(stem, ()):
            out.update(("@" + name, ("-" if turned else "+") + name))
            kinds.add(name)
    kinds = sorted(kinds)
    out.update(f"{a}&{b}" for i, a in enumerate(kinds) for b in kinds[i + 1:])
    out.update(f"{w}@{name}" for w in ("my", "i", "we") if w in words or "im" in words and w == "i" for name in kinds)
    first, last = parts(text)
    out.update("1:" + said(w) for w in retrieval.words(" ".join(first)) if first)
    out.update("2:" + said(w) for w in retrieval.words(" ".join(last)) if last)
    out.update(mark for mark in ("!", "!!", "?", "...") if mark in text)
    out.update("emoji " + c for c in text if ord(c) >= 0x2600)
    if any(w in LAUGHS for w in words):
        out.add("laughs")
    return out


def slot(feature):
    """FNV-1a over the bytes, folded."""
    h = 0x811C9DC5
    for byte in feature.encode():
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (h ^ h >> 16) % SLOTS


def slots(text):
    return np.array(sorted({slot(f) for f in features(text)}))


def shares(weights, found):
    scores = SHARPER * weights[found].sum(0) / np.sqrt(len(found))
    es = np.exp(scores - scores.max())
    return es / es.sum()


def train(rows, names, seed=0):
    """`rows` are (slots, index of the feeling)."""
    weights = np.zeros((SLOTS, len(names)), np.float32)
    seen = np.full((SLOTS, len(names)), 1e-2, np.float32)
    draw = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for at in draw.permutation(len(rows)):
            found, wanted = rows[at]
            norm = 1 / np.sqrt(len(found))
            now = weights[found]
            scores = now.sum(0) * norm
            error = np.exp(scores - scores.max())
            error /= error.sum()
            error[wanted] -= 1
            g = error * norm + DECAY * now
            seen[found] += g * g
            weights[found] = now - RATE * g / np.sqrt(seen[found])
    return weights


def valences(share, names):
    out = Counter()
    for name, p in zip(names, share):
        out[VALENCE[name]] += p
    return out


def report(rows, names):
    data = [(slots(text), names.index(feeling)) for text, feeling in rows]
    order = list(range(len(data)))
    random.Random(1).shuffle(order)
    right, right_valence, glad, wrong, sure = 0, 0, 0, Counter(), defaultdict(list)
    for k in range(FOLDS):
        weights = train([data[i] for n, i in enumerate(order) if n % FOLDS != k], names)
        for i in order[k::FOLDS]:
            share = shares(weights, data[i][0])
            found, wanted = names[int(share.argmax())], rows[i][1]
            by = valences(share, names)
            valence, p = by.most_common(1)[0]
            right += found == wanted
            right_valence += valence == VALENCE[wanted]
            glad += (by["good"] > 0.5) == (VALENCE[wanted] == "good")
            sure["feeling", int(share.max() * 5)].append(found == wanted)
            sure["valence", int(p * 5)].append(valence == VALENCE[wanted])
            wrong[wanted, found] += found != wanted
    n = len(rows)
    print(f"{n} lines, {len(names)} feelings, {FOLDS} folds: {right / n:.3f} right, {right_valence / n:.3f} the valence, {glad / n:.3f} glad or not")
    for (what, p), hits in sorted(sure.items()):
        print(f"  {what} sure to {p / 5:.1f}-{p / 5 + 0.2:.1f}: {sum(hits) / len(hits):.2f} of {len(hits)} right")
    print(", ".join(f"{b} for {a} {n}" for (a, b), n in wrong.most_common(16)))


def main():
    rows = list(lines())
    names = list(VALENCE)
    if "--folds" in sys.argv:
        report(rows, names)
    weights = train([(slots(text), names.index(feeling)) for text, feeling in rows], names)
    scale = float(np.abs(weights).max()) / LEVEL
    stored = np.round(weights / scale).astype(np.int8)
    (ASSETS / "feelings.bin").write_bytes(stored.tobytes())
    with open(ASSETS / "feelings.tsv", "w", encoding="utf-8") as out:
        for valence, of in VALENCES.items():
            out.write(f"valence\t{valence}\t{of}\n")
        out.write(f"scale\t{scale * SHARPER:.9g}\n")
        for name, words in word_classes().items():
            out.write(f"class\t{name}\t{' '.join(words)}\n")
        for text, _ in random.Random(2).sample(rows, N_PROBES):
            share = shares(stored * np.float32(scale), slots(text))
            out.write(f"probe\t{names[int(share.argmax())]} {share.max():.3f}\t{text}\n")


if __name__ == "__main__":
    main()
