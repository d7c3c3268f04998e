"""Training rows: an exemplar, remembered facts, a conversation; the loss is on the parent's last words, and a little on the rest.

A small model adapts better than it invents. Before the conversation stands, in an `example` turn, the same exchange under other
names and days (so that carrying over is worth learning), the neighbour whose reply helps most, the neighbour that the engine would
show, or nothing. Names are exchanged in the conversation too, so that the model copies them from the facts instead of knowing them.
"""
import random
import re

import retrieval

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SELF, BEST, NEAREST = 0.20, 0.50, 0.86  # cumulated shares of the kinds of exemplar; the rest has none
LATER_SHARE = 0.15  # of the later exchanges have an exemplar; the engine gives them none
NEAR_ENOUGH = 0.25  # a little below the engine's own threshold, so that poor ones are seen and not trusted
N_NEIGHBOURS = 8
RENAMED_SHARE = 0.5
EARLIER_LOSS, OTHER_LOSS = 0.35, 0.1  # shares of the tokens of earlier replies, and of the person's, that count


def names_in(dialogues):
    """First names, as the facts lines give them."""
    found = {m for d in dialogues if d.facts for m in re.findall(r"\b[a-z]+ ([A-Z][a-z]{2,})", d.facts)}
    return sorted(found - set(DAYS))


class Renamer:
    """Exchanges the known names and days of some texts, the same way in all of them."""

    def __init__(self, names, rng):
        self.names, self.known, self.rng = names, set(names), rng

    def __call__(self, texts):
        found = {w for t in texts for w in re.findall(r"\b[A-Z][a-z]{2,}\b", t) if w in self.known or w in DAYS}
        if not found:
            return None
        new = {w: self.rng.choice(DAYS if w in DAYS else self.names) for w in sorted(found)}
        upper = re.compile(r"\b(" + "|".join(found) + r")\b")
        lower = re.compile(r"\b(" + "|".join(w.lower() for w in found) + r")\b")
        back = {w.lower(): new[w].lower() for w in found}
        exchange = lambda t: lower.sub(lambda m: back[m[0]], upper.sub(lambda m: new[m[0]], t))
        return [exchange(t) for t in texts]


class Rows:
    def __init__(self, dialogues, tok, seed=0, max_ids=384):
        self.dialogues, self.tok, self.max_ids = dialogues, tok, max_ids
        self.rng = random.Random(seed)
        self.rename = Renamer(names_in(dialogues), self.rng)
        self.start, self.stop, self.end = (tok.token_to_id(t) for t in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
        self.newline = tok.encode("\n").ids
        self.exchanges = [(d, i) for d, x in enumerate(dialogues) for i in range(0, len(x.turns), 2)]
        self.neighbours = None

    def find_neighbours(self):
        """For each exchange the one whose reply would fit best, and, of the likest, the one whose reply is most like its own."""
        self.neighbours = [None] * len(self.exchanges)
        for later in (False, True):
            group = [k for k, (_, i) in enumerate(self.exchanges) if bool(i) == later]
            index = retrieval.Index([self.exchange(k) for k in group])
            replies = [retrieval.features(self.reply(k)) for k in group]
            for a, k in enumerate(group):
                near = [b for s, b in index.likest(self.exchange(k)[0], N_NEIGHBOURS + 4)
                        if s >= NEAR_ENOUGH and self.exchanges[group[b]][0] != self.exchanges[k][0]][:N_NEIGHBOURS]
                if near:
                    best = max(near, key=lambda b: len(replies[a].keys() & replies[b].keys()) / (4 + len(replies[b])))
                    self.neighbours[k] = (group[near[0]], group[best])

    def reply(self, k):
        d, i = self.exchanges[k]
        return self.dialogues[d].turns[i + 1]

    def exchange(self, k):
        d, i = self.exchanges[k]
        return list(self.dialogues[d].turns[i:i + 2])

    def example(self, k):
        dice, own = self.rng.random(), None
        if self.exchanges[k][1] and self.rng.random() >= LATER_SHARE:
            return None
        if dice < SELF:
            own = self.rename(self.exchange(k))
        if own is None and dice < NEAREST and self.neighbours[k]:
            nearest, best = self.neighbours[k]
            own = self.exchange(best if dice < BEST else nearest)
        return own

    def row(self, k):
        """(ids, mask) of exchange `k`, drawn anew each time."""
        d, i = self.exchanges[k]
        dialogue = self.dialogues[d]
        n_before = self.rng.choice((2, 2, 4, 6, 10))
        turns = list(dialogue.turns[max(0, i - n_before):i + 2])
        if dialogue.wordings and len(turns) > i:
            turns[0] = self.rng.choice((turns[0], *dialogue.wordings))
        texts = turns + ([dialogue.facts] if dialogue.facts else [])
        if self.rng.random() < RENAMED_SHARE:
            texts = self.rename(texts) or texts
        return self.encode(self.example(k), texts[len(turns)] if dialogue.facts else None, texts[:len(turns)])

    def encode(self, example, facts, turns):
        """Ids and, for each, the share of its loss that counts; the oldest exchanges are left out where all are too long."""
        head = ([("example", "\n".join(example))] if example else []) + ([("system", facts)] if facts else [])
        while True:
            parts = head + [(("user", "assistant")[j % 2], t) for j, t in enumerate(turns)]
            ids, mask = [], []
            for j, (role, text) in enumerate(parts):
                last = j == len(parts) - 1
                share = 1.0 if last else EARLIER_LOSS if role == "assistant" else OTHER_LOSS if role == "user" else 0.0
                opening, body = [self.start, *self.tok.encode(role + "\n").ids], [*self.tok.encode(text).ids, self.stop]
                ids += opening + body + self.newline
                mask += [0.0] * len(opening) + [share] * len(body) + [0.0] * len(self.newline)
            if len(ids) < self.max_ids or len(turns) <= 2:
                return [*ids, self.end][:self.max_ids], [*mask, 0.0][:self.max_ids]
            turns = turns[2:]

    def epochs(self):
        """Rows for ever, each exchange once in a round."""
        order = list(range(len(self.exchanges)))
        while True:
            self.rng.shuffle(order)
            yield from map(self.row, order)


def pack(rows, width, pad, at_once=120):
    """Windows of width + 1 ids: the longest rows of a handful first, each into the fullest window that has room."""
    while True:
        windows = []
        for ids, mask in sorted((next(rows) for _ in range(at_once)), key=lambda r: -len(r[0])):
            fits = [w for w in windows if len(w[0]) + len(ids) <= width + 1]
            target = max(fits, key=lambda w: len(w[0])) if fits else ([], [])
            if not fits:
                windows.append(target)
            target[0].extend(ids)
            target[1].extend(mask)
        for ids, mask in windows[:-1]:  # the last is the emptiest
            room = width + 1 - len(ids)
            yield ids + [pad] * room, mask + [0.0] * room
