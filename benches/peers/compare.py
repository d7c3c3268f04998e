#!/usr/bin/env python3
"""Measures mommygpt, llama.cpp and, where asked for, candle in turns on the same files, and prints the ratios.

    compare.py run   --peer DIR/native/bin/python --ours target/release/mommygpt -m FILE... [--out results.jsonl]
    compare.py table results.jsonl

`run` appends one line per engine, test and round; engines take turns within a round, and the order turns round with
every round, so that a machine which slows down slows both. Each line says how much of the cores others used meanwhile
(Linux); a disturbed measurement is repeated, at most `--patience` times. `table` takes the median of all undisturbed
samples of all rounds, and of llama.cpp's configurations the one that is best at each test. candle's models take one
sequence at a time: `8 x tg32` is not asked of them.
"""
import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import time

# name: (flags of both programs, prompt tokens, generated tokens, depth, sequences)
TESTS = {
    "pp512": (512, 0, 0, 1),
    "tg128": (0, 128, 0, 1),
    "pp512 @ d4096": (512, 0, 4096, 1),
    "tg32 @ d4096": (0, 32, 4096, 1),
    "32 new @ d2048": (32, 0, 2048, 1),
    "8 x tg32 @ d512": (0, 32, 512, 8),
}
# llama.cpp's two ways of laying out weights; flash attention on, its better setting at every depth tried.
PEER_CONFIGURATIONS = [("1", "1"), ("0", "1")]
# Cores' worth of other people's work above which a measurement counts as disturbed.
DISTURBED = 0.1


def flags(test, repetitions, threads):
    n_prompt, n_gen, depth, n_seq = TESTS[test]
    given = {"-p": n_prompt, "-n": n_gen, "-d": depth, "-np": n_seq, "-r": repetitions, "-t": threads}
    return [str(word) for pair in given.items() for word in pair]


def busy_seconds():
    """Processor seconds that this machine has worked for anybody, or was kept from working; None where unknown."""
    try:
        words = pathlib.Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, words[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(command, environment=None):
    """The JSON lines that a command prints, and how many cores others used meanwhile."""
    before = busy_seconds(), own_seconds(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nfailed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    others = 0.0
    if before[0] is not None:
        own, wall = own_seconds() - before[1], time.monotonic() - before[2]
        others = max(0.0, (busy_seconds() - before[0] - own) / wall)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], others


def engines(args):
    """Name and a function from (file, test) to JSON lines, for each engine and configuration."""
    environment = dict(os.environ)
    if args.isa:
        environment["MOMMYGPT_FORCE_ISA"] = args.isa
    peer = str(pathlib.Path(__file__).with_name("peer.py"))

    def theirs(repack, fa):
        more = ["--repack", repack, "--fa", fa]
        return lambda file, test: measure(
            [args.peer, peer, "-m", file, *flags(test, args.repetitions, args.threads), *more]
        )

    def ours(file, test):
        bench = [args.ours, "bench", "-m", file, "-o", "jsonl", "-ub", "512"]
        return measure([*bench, *flags(test, args.repetitions, args.threads)], environment)

    def candles(file, test):
        if TESTS[test][3] > 1:
            return [], 0.0
        threads = {name: str(args.threads) for name in ("CANDLE_NUM_THREADS", "RAYON_NUM_THREADS")}
        words = flags(test, args.repetitions, args.threads)
        return measure([args.candle, "-m", file, *words], {**os.environ, **threads})

    named = [(f"llama.cpp repack={r} fa={f}", theirs(r, f)) for r, f in args.configurations]
    if args.candle:
        named.append(("candle", candles))
    return [("mommygpt", ours), *named]


def patiently(measured, file, test, patience):
    """Measures, again while others disturb, and gives the least disturbed."""
    best = None
    for _ in range(patience + 1):
        records, others = measured(file, test)
        if best is None or others < best[1]:
            best = records, others
        if others <= DISTURBED:
            break
    return best


def run(args):
    configurations = [tuple(c.split(",")) for c in args.peer_configuration]
    args.configurations = configurations or PEER_CONFIGURATIONS
    turns = engines(args)
    rounds = [(r, file, test) for r in range(args.rounds) for file in args.model for test in args.test or TESTS]
    with open(args.out, "a", encoding="utf-8") as out:
        for round_, file, test in rounds:
            for name, measured in turns if round_ % 2 == 0 else reversed(turns):
                records, others = patiently(measured, file, test, args.patience)
                for record in records:
                    line = {
                        "engine": name,
                        "test": test,
                        "file": pathlib.Path(file).stem,
                        "isa": args.isa or "best",
                        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                        "others": round(others, 3),
                        "record": record,
                    }
                    print(json.dumps(line), file=out, flush=True)
                    speeds = " ".join(f"{s:.1f}" for s in record["samples_ts"])
                    print(f"{name}, {line['file']}, {test}: {speeds} (others {others:.2f})", flush=True)


def table(args):
    samples, disturbed = collections.defaultdict(list), 0
    for path in args.results:
        for line in map(json.loads, pathlib.Path(path).read_text(encoding="utf-8").splitlines()):
            if line["others"] > args.others:
                disturbed += 1
                continue
            key = (line["isa"], line["file"], line["test"])
            samples[key, line["engine"]].extend(line["record"]["samples_ts"])
    keys = list(dict.fromkeys(key for key, _ in samples))
    print(f"{platform.machine()}, Linux {platform.release()}; tokens/s: median (lowest to highest) of n samples")
    print(f"{disturbed} measurements left out: others used more than {args.others} cores meanwhile\n")
    print("| kernels | file | test | candle | llama.cpp | mommygpt | ratio | n |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for key in keys:
        theirs = {e: s for (k, e), s in samples.items() if k == key and e.startswith("llama.cpp")}
        candles = samples.get((key, "candle"), [])
        ours = samples.get((key, "mommygpt"))
        if not ours or not theirs:
            continue
        best = max(theirs.values(), key=statistics.median)
        ratio = statistics.median(ours) / max(statistics.median(s) for s in (best, candles) if s)
        all_three = (candles, best, ours)
        shown = [f"{statistics.median(s):.1f} ({min(s):.1f} to {max(s):.1f})" if s else "" for s in all_three]
        print(f"| {' | '.join([*key, *shown])} | **{ratio:.2f}** | {len(ours)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("--peer", required=True, help="the Python of an environment that build.sh made")
    runs.add_argument("--ours", required=True, help="a release build of mommygpt")
    runs.add_argument("--candle", help="the program that build.sh made of candle's models")
    runs.add_argument("-m", "--model", action="append", required=True)
    runs.add_argument("--test", action="append", choices=TESTS, help="one of the tests; all by default")
    runs.add_argument("--peer-configuration", action="append", default=[], metavar="REPACK,FA")
    runs.add_argument("--isa", help="MOMMYGPT_FORCE_ISA for ours; give --peer a build without the rest")
    runs.add_argument("--rounds", type=int, default=3)
    runs.add_argument("-r", "--repetitions", type=int, default=2, help="samples of a test in a round")
    runs.add_argument("-t", "--threads", type=int, default=2)
    runs.add_argument("--patience", type=int, default=2, help="how often a disturbed measurement is repeated")
    runs.add_argument("--out", default="results.jsonl")
    runs.set_defaults(do=run)
    tables = verbs.add_parser("table")
    tables.add_argument("results", nargs="+")
    tables.add_argument("--others", type=float, default=DISTURBED, help="cores of others' work that are borne")
    tables.set_defaults(do=table)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
