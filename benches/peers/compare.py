#!/usr/bin/env python3
"""Measures mommygpt and llama.cpp in turns on the same files, and prints the ratios.

    compare.py run   --peer DIR/native/bin/python --ours target/release/mommygpt -m FILE... [--out results.jsonl]
    compare.py table results.jsonl

`run` appends one line per engine, test and round; engines take turns within a round, and the order turns round with
every round, so that a machine which slows down slows both. `table` takes the median of all samples of all rounds, and
of llama.cpp's configurations the one that is best at each test.
"""
import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess

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


def flags(test, repetitions, threads):
    n_prompt, n_gen, depth, n_seq = TESTS[test]
    given = {"-p": n_prompt, "-n": n_gen, "-d": depth, "-np": n_seq, "-r": repetitions, "-t": threads}
    return [str(word) for pair in given.items() for word in pair]


def measure(command, environment=None):
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nfailed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


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

    named = [(f"llama.cpp repack={r} fa={f}", theirs(r, f)) for r, f in args.configurations]
    return [("mommygpt", ours), *named]


def run(args):
    args.configurations = [tuple(c.split(",")) for c in args.peer_configuration] or PEER_CONFIGURATIONS
    turns = engines(args)
    with open(args.out, "a", encoding="utf-8") as out:
        for round_ in range(args.rounds):
            for file in args.model:
                for test in args.test or TESTS:
                    for name, measured in turns if round_ % 2 == 0 else reversed(turns):
                        for record in measured(file, test):
                            line = {
                                "engine": name,
                                "test": test,
                                "file": pathlib.Path(file).stem,
                                "isa": args.isa or "best",
                                "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                                "record": record,
                            }
                            print(json.dumps(line), file=out, flush=True)
                            print(name, line["file"], test, [f"{s:.1f}" for s in record["samples_ts"]], flush=True)


def table(args):
    samples = collections.defaultdict(list)
    for path in args.results:
        for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
            line = json.loads(line)
            key = (line["isa"], line["file"], line["test"])
            samples[key, line["engine"]].extend(line["record"]["samples_ts"])
    keys = list(dict.fromkeys(key for key, _ in samples))
    print(f"{platform.machine()}, Linux {platform.release()}; tokens/s: median (lowest to highest) of n samples\n")
    print("| kernels | file | test | llama.cpp | mommygpt | ratio | n |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for key in keys:
        theirs = {e: s for (k, e), s in samples.items() if k == key and e != "mommygpt"}
        ours = samples.get((key, "mommygpt"))
        if not ours or not theirs:
            continue
        best = max(theirs.values(), key=statistics.median)
        ratio = statistics.median(ours) / statistics.median(best)
        shown = [f"{statistics.median(s):.1f} ({min(s):.1f} to {max(s):.1f})" for s in (best, ours)]
        print(f"| {key[0]} | {key[1]} | {key[2]} | {shown[0]} | {shown[1]} | **{ratio:.2f}** | {len(ours)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("--peer", required=True, help="the Python of an environment that build.sh made")
    runs.add_argument("--ours", required=True, help="a release build of mommygpt")
    runs.add_argument("-m", "--model", action="append", required=True)
    runs.add_argument("--test", action="append", choices=TESTS, help="one of the tests; all by default")
    runs.add_argument("--peer-configuration", action="append", default=[], metavar="REPACK,FA")
    runs.add_argument("--isa", help="MOMMYGPT_FORCE_ISA for ours; give --peer a build without the rest")
    runs.add_argument("--rounds", type=int, default=3)
    runs.add_argument("-r", "--repetitions", type=int, default=2, help="samples of a test in a round")
    runs.add_argument("-t", "--threads", type=int, default=2)
    runs.add_argument("--out", default="results.jsonl")
    runs.set_defaults(do=run)
    tables = verbs.add_parser("table")
    tables.add_argument("results", nargs="+")
    tables.set_defaults(do=table)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
