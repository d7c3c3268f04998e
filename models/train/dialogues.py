"""Reading the dialogues: `# topic`, an optional `S:` line of remembered facts, `U:` and `P:` lines in turn, a blank line between.
An `O:` line gives other wordings of the opening, ` | ` between them."""
import glob
import lzma
import random
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_SHARE = 20  # one dialogue in so many is never trained on
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Dialogue:
    topic: str
    facts: str | None
    turns: tuple[str, ...]  # the person's and the parent's in turn, the parent's last
    wordings: tuple[str, ...] = ()  # the opening said otherwise


def parse(lines):
    """Yield the well-formed dialogues of some lines; one that does not end with the parent's words is left out."""
    topic, facts, turns, wordings = "", None, [], ()
    for line in [*lines, ""]:
        line = line.strip()
        if line.startswith("# "):
            topic = line[2:]
        elif line.startswith("S: "):
            facts = line[3:].strip()
        elif line.startswith("O: "):
            wordings = tuple(line[3:].split(" | "))
        elif line.startswith(("U: ", "P: ")):
            turns.append(line[3:].strip())
        elif not line and turns:
            if len(turns) % 2 == 0:
                yield Dialogue(topic, facts, tuple(turns), wordings)
            topic, facts, turns, wordings = "", None, [], ()


def read(pattern):
    """All dialogues of the files that match, in the order of their names; `.xz` files are unpacked."""
    out = []
    for path in sorted(glob.glob(str(pattern))):
        opener = lzma.open if path.endswith(".xz") else open
        with opener(path, "rt", encoding="utf-8") as f:
            out.extend(parse(f.read().split("\n")))
    return out


@dataclass(frozen=True)
class Situation:
    name: str
    patterns: tuple[str, ...]
    wordings: tuple[str, ...]  # openings in full, for the collection
    replies: tuple[str, ...]  # any of them fits; a `{class}` stands for the word that was found


def situations():
    for path in sorted(DATA.glob("situations-*.txt")):
        for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
            lines = [line.split(" ", 1) for line in block.split("\n")]
            by = lambda mark: [rest for m, rest in lines if m == mark]
            if by("M:"):
                cut = lambda mark: tuple(part for rest in by(mark) for part in rest.split(" | "))
                yield Situation(by("#")[0], cut("M:"), cut("U:"), tuple(by("P:")))


def of_situations():
    """Each situation with wordings as an exchange, with its first reply that needs no word of the message."""
    for s in situations():
        plain = [reply for reply in s.replies if "{" not in reply]
        if s.wordings and plain:
            yield Dialogue(s.name, None, (s.wordings[0], plain[0]), s.wordings[1:])


def split():
    """(training, held out). The first collection is split by a fixed shuffle. Of what was added later, which no earlier weights
    have seen, every fourth is held out, and comes first."""
    first, added = read(DATA / "dialogues.txt.xz"), read(DATA / "added-*.txt")
    random.Random(0).shuffle(first)
    n = len(first) // HELD_OUT_SHARE
    return first[n:] + [d for i, d in enumerate(added) if i % 4], added[::4] + first[:n]
