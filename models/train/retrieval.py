"""The nearest written exchange: the same measure as `src/chat/exemplars.rs`, so that rows look as prompts will.

Two openings are alike by the words they share and by the pairs of neighbouring words they share, each weighted by how rare it is.
Words are brought to a stem, and words that mean the same (`assets/same_words.txt`) to one of them.
"""
import math
import re
from collections import defaultdict
from pathlib import Path

SAME_WORDS = Path(__file__).parents[2] / "assets" / "same_words.txt"
# Words that say little of the matter; they count in pairs only.
STOP = set(
    "i a an the to of and or in on at is it its im am my me you your that this was with for so do dont be have has had just can "
    "what how are but not ive did get got really very too also been will would there were does as if then than by from up out "
    "about all some any because cos bc when again ill id thats theres like".split()
)
STEM_CHARS = 6
PAIR = 0.4  # what a pair counts, beside a word
START, TO_YOU = "^", "@you"  # before the first word; somebody speaks to the parent about the parent
FOREIGN = 0.5  # what a word of the reply costs that only the other opening licenses
NAME_COST = 3.0  # what a name costs that nobody mentioned, or a number where the other opening has one
OTHER_THING = 1.0  # what it costs that both openings have a word the other lacks: eggs here, pasta there
NUMBERS = set("two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred".split())


def _same():
    lines = [line.split() for line in SAME_WORDS.read_text(encoding="utf-8").split("\n") if line and not line.startswith("#")]
    return {word: group[0] for group in lines for word in group}


SAME = _same()


def stem(word):
    if word in SAME:
        return SAME[word]
    s = word
    if len(s) > 3 and s.endswith("s") and not s.endswith("ss"):
        s = s[:-1]
    for suffix in ("ing", "ed"):
        if len(s) > len(suffix) + 2 and s.endswith(suffix):
            s = s[:-len(suffix)]
            if s[-1] == s[-2] and s[-1] not in "lsz":
                s = s[:-1]
            break
    if len(s) > 3 and s.endswith("e"):
        s = s[:-1]
    return SAME.get(s, s[:STEM_CHARS])


def words(text):
    found = re.findall(r"[^\W_]+", text.lower().replace("'", "").replace("’", ""))
    return found or [text.strip()]


def is_number(word):
    return word in NUMBERS or word.isdigit()


def features(text):
    """Stems, pairs and marks of a text, each with what it counts."""
    said = words(text)
    said = [w if w in STOP else stem(w) for w in said]
    out = {w: 1.0 for w in said if w not in STOP}
    out |= {f"{a} {b}": PAIR for a, b in zip([START, *said], said)}
    if any(w in ("you", "your", "youre") for w in said):
        out[TO_YOU] = 1.0
    return out


class Index:
    """Openings and the replies to them."""

    def __init__(self, exchanges):
        self.exchanges, self.n = exchanges, len(exchanges)
        self.docs, self.postings = [features(o) for o, _ in exchanges], defaultdict(list)
        for i, doc in enumerate(self.docs):
            for feature in doc:
                self.postings[feature].append(i)
        self.own = [self.total(doc) for doc in self.docs]

    def weight(self, feature):
        n = len(self.postings.get(feature, ()))
        return math.log(1 + (self.n - n + 0.5) / (n + 0.5))

    def total(self, doc):
        return sum(self.weight(f) * k for f, k in doc.items())

    def foreign(self, i, asked):
        """Weight of what the reply says of its own opening that was not asked here, of names and numbers out of nowhere, and of
        what stands in the one opening in place of something in the other."""
        doc, reply = self.docs[i], self.exchanges[i][1]
        said = words(reply)
        stems = {stem(w) for w in said}
        cost = sum(self.weight(f) for f in doc if f in stems and f not in asked)
        names = {stem(n.lower()) for n in re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{2,}", reply)}
        cost += NAME_COST * sum(n not in asked and n not in doc for n in names)
        if any(is_number(f) for f in doc):
            cost += NAME_COST * sum(is_number(w) and w not in asked for w in set(said))
        lacks = lambda a, b: sum(self.weight(f) for f, counts in a.items() if counts == 1.0 and f not in b)
        return cost + OTHER_THING * min(lacks(asked, doc), lacks(doc, asked))

    def likest(self, text, n):
        """The `n` likest openings as (likeness 0 to 1, number), best first; the earlier of equals first."""
        asked = features(text)
        shared = defaultdict(float)
        for feature, k in asked.items():
            for i in self.postings.get(feature, ()):
                shared[i] += self.weight(feature) * k
        own = self.total(asked)
        scored = sorted(((2 * s / (own + self.own[i]), -i) for i, s in shared.items()), reverse=True)
        return [(likeness, -i) for likeness, i in scored[:n]]

    def fitting(self, text, n=1, among=60):
        """Those of the likest whose replies fit best as they stand, as (fit, number)."""
        asked = features(text)
        own = self.total(asked)
        fits = [(s - FOREIGN * self.foreign(i, asked) / (own + self.own[i]), -i) for s, i in self.likest(text, among)]
        return [(fit, -i) for fit, i in sorted(fits, reverse=True)[:n]]

    def example(self, text, from_likeness):
        """The exchange that is shown to the model: the best fitting of those that are like enough."""
        asked, own = features(text), self.total(features(text))
        near = [(s - FOREIGN * self.foreign(i, asked) / (own + self.own[i]), -i) for s, i in self.likest(text, 60) if s >= from_likeness]
        return self.exchanges[-max(near)[1]] if near else None


def shipped():
    """The index over the engine's own collection."""
    rows = (SAME_WORDS.parent / "exemplars.tsv").read_text(encoding="utf-8").split("\n")
    pairs = (row.split("\t") for row in rows if row)
    return Index([(opening, reply) for wordings, reply in pairs for opening in wordings.split(" | ")])
