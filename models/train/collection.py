#!/usr/bin/env python3
"""Write what the engine takes whole or as an example: exemplars.tsv, follow_ups.tsv, danger_replies.tsv, listening.tsv in ../../assets.

Openings of dialogues without remembered facts, each with its reply; wordings of one opening are joined by ` | `. Then the replies to
short messages inside a conversation, those to messages in which the crisis check sees danger, by its kinds, and those for
messages that nothing written fits.
"""
import dialogues
from dialogues import DATA

ASSETS = DATA.parents[2] / "assets"


def exemplars():
    seen = set()
    for d in dialogues.read(DATA / "dialogues.txt.xz") + dialogues.read(DATA / "added-*.txt"):
        pair = (d.turns[0], d.turns[1])
        if not d.facts and pair not in seen:
            seen.add(pair)
            yield " | ".join((d.turns[0], *d.wordings)), d.turns[1]


def groups(path):
    """(heading, wordings, replies) of each block."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        lines = [line.split(" ", 1) for line in block.split("\n")]
        by = lambda mark: [rest for m, rest in lines if m == mark]
        yield by("#")[0], " | ".join(by("U:") + by("O:")), by("P:") + by("W:")


def write(name, rows):
    rows = list(rows)
    assert not any("\t" in cell for row in rows for cell in row)
    (ASSETS / name).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{name}: {len(rows)} lines")


def main():
    write("exemplars.tsv", exemplars())
    write("follow_ups.tsv", ((wordings, reply) for _, wordings, replies in groups(DATA / "follow-ups.txt") for reply in replies))
    write("danger_replies.tsv", ((kind, reply) for kind, _, replies in groups(DATA / "danger-replies.txt") for reply in replies))
    write("listening.tsv", ((kind, reply) for kind, _, replies in groups(DATA / "listening.txt") for reply in replies))


if __name__ == "__main__":
    main()
