#!/usr/bin/env python3
"""Write what the engine takes whole or as an example into ../../assets: exemplars.tsv, follow_ups.tsv, danger_replies.tsv,
situations.tsv, riddles.tsv, listening.tsv, echo.tsv.

Openings of dialogues without remembered facts, each with its reply; wordings of one opening are joined by ` | `. Then the replies to
short messages inside a conversation, those to messages in which the crisis check sees danger, by its kinds, those to kinds of
messages by their patterns, and those for messages that nothing written fits.
"""
import dialogues
from dialogues import DATA

ASSETS = DATA.parents[2] / "assets"


def exemplars():
    seen = set()
    for d in dialogues.read(DATA / "dialogues.txt.xz") + dialogues.read(DATA / "added-*.txt") + list(dialogues.of_situations()):
        pair = (d.turns[0], d.turns[1])
        if not d.facts and pair not in seen:
            seen.add(pair)
            yield " | ".join((d.turns[0], *d.wordings)), d.turns[1]


def groups(path):
    """(heading, wordings, replies) of each block that has a heading."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        if not block.startswith("# "):
            continue
        lines = [line.split(" ", 1) for line in block.split("\n")]
        by = lambda mark: [rest for m, rest in lines if m == mark]
        yield by("#")[0], " | ".join(by("U:") + by("O:")), by("P:") + by("W:")


def situations():
    """The classes of words (`@name word word`), then the situations; `{riddles}` stands for all riddles."""
    riddles = [replies[0] for _, _, replies in groups(DATA / "riddles.txt")]
    for path in sorted(DATA.glob("situations-*.txt")):
        text = path.read_text(encoding="utf-8")
        yield from (tuple(line.split(" ", 1)) for line in text.split("\n") if line.startswith("@"))
    for situation in dialogues.situations():
        replies = riddles if situation.replies == ("{riddles}",) else situation.replies
        yield situation.name, " | ".join(situation.patterns), *replies


def riddles():
    for keys, _, (riddle, answer) in groups(DATA / "riddles.txt"):
        yield riddle, keys, answer


def echo():
    """(heading, part, text) of the sentences that go behind what is given back."""
    for block in (DATA / "echo.txt").read_text(encoding="utf-8").strip().split("\n\n"):
        heading, *lines = block.split("\n")
        yield from ((heading[2:], *line.split(": ", 1)) for line in lines)


def write(name, rows):
    rows = list(rows)
    assert not any("\t" in cell for row in rows for cell in row)
    (ASSETS / name).write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{name}: {len(rows)} lines")


def main():
    write("exemplars.tsv", exemplars())
    write("follow_ups.tsv", ((wordings, reply) for _, wordings, replies in groups(DATA / "follow-ups.txt") for reply in replies))
    write("danger_replies.tsv", ((kind, reply) for kind, _, replies in groups(DATA / "danger-replies.txt") for reply in replies))
    write("situations.tsv", situations())
    write("riddles.tsv", riddles())
    write("echo.tsv", echo())
    write("listening.tsv", ((kind, reply) for kind, _, replies in groups(DATA / "listening.txt") for reply in replies))


if __name__ == "__main__":
    main()
