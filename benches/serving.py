"""What the server costs beside the model: `python3 benches/serving.py [path of the mommygpt binary]`.

1,000 idle event streams (memory and processor time each), a SIGTERM with 100 streams and 4 generations running, and what
HTTP takes of the engine's tokens/s. Needs a release build; uses the built-in model and a temporary folder.

How servers with OpenAI's API bear a family, in turns: `python3 benches/serving.py --url NAME=URL [--url NAME=URL]...`

A chat of 20 turns, 8 people at once, and those 8 while a long prompt arrives: the same requests to each server, who begins
changes with every round. The model must be one of `peers/make_gguf.py`, whose vocabulary has one token per byte: so each
side reads and writes the same number of tokens, and what was written is read again as the same tokens. Of mommygpt an
account is made; another server's key stands in the variable KEY.
"""

import argparse

import json
import os
import random
import re
import signal
import statistics
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

PASSWORD = "correct horse battery staple"


class House:
    """A running server and its first person."""

    def __init__(self, binary, folder):
        command = [binary, "serve", "--port", "0", "--dir", folder, "-m", "builtin", "-np", "4"]
        command[command.index("-np")] = "--parallel"
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.base = next(m.group(0) for m in (re.search(r"http://[0-9.:]+", l) for l in self.process.stdout) if m)
        self.address = ("127.0.0.1", int(self.base.rsplit(":", 1)[1]))
        self.token = None
        self.token = self.call("/api/auth/signup", {"email": "a@example.org", "password": PASSWORD})["session_token"]

    def request(self, path, body=None, accept="application/json"):
        headers = {"Content-Type": "application/json", "Accept": accept}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(self.base + path, data, headers)

    def call(self, path, body=None):
        with urllib.request.urlopen(self.request(path, body), timeout=60) as answer:
            return json.load(answer)

    def stream(self):
        """An open event stream."""
        self.n_lines = getattr(self, "n_lines", 0) + 1
        # A household has few addresses, and each few connections: these come from many.
        line = socket.create_connection(self.address, source_address=(f"127.0.1.{1 + self.n_lines % 200}", 0))
        line.sendall(f"GET /api/events HTTP/1.1\r\nHost: {self.base[7:]}\r\nAuthorization: Bearer {self.token}\r\n"
                     "Accept: text/event-stream\r\n\r\n".encode())
        assert b" 200 " in line.recv(4096)[:20]
        return line

    def resident_kib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))

    def cpu_s(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        return code, time.monotonic() - began


def idle_streams(house, n=1000, seconds=20):
    before = house.resident_kib()
    streams = [house.stream() for _ in range(n)]
    time.sleep(1)
    each = (house.resident_kib() - before) / n
    cpu, began = house.cpu_s(), time.monotonic()
    time.sleep(seconds)
    share = (house.cpu_s() - cpu) / (time.monotonic() - began)
    for line in streams:
        line.close()
    print(f"| {n} idle event streams: KiB each | {each:.1f} | 64 |")
    print(f"| the same: share of one core | {100 * share:.2f}% | 2% |")


def overhead(house, runs=5):
    """Tokens/s that a client sees against those that the engine counts, of the same answers."""
    ratios = []
    for seed in range(runs):
        body = {"messages": [{"role": "user", "content": "tell me a long story"}], "seed": seed, "temperature": 1.5,
                "max_tokens": 120, "stream": True, "logit_bias": {}}
        first = last = None
        with urllib.request.urlopen(house.request("/v1/chat/completions", body), timeout=120) as answer:
            for line in answer:
                if not line.startswith(b"data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "timings" in chunk:
                    timings = chunk["timings"]
                elif chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                    last = time.monotonic()
                    first = first or last
        n = timings["predicted_n"]
        if n > 40:
            seen = (n - 1) / (last - first)
            ratios.append(seen / ((n - 1) / (timings["predicted_ms"] / 1e3)))
    ratios.sort()
    if ratios:
        print(f"| tokens/s through HTTP against the engine's own, median of {len(ratios)} | "
              f"{100 * ratios[len(ratios) // 2]:.1f}% | 97% |")


def termination(binary):
    with tempfile.TemporaryDirectory() as folder:
        house = House(binary, folder)
        streams = [house.stream() for _ in range(100)]
        chats = [house.call("/api/chats", {})["id"] for _ in range(4)]

        def talk(chat):
            body = {"content": "Tell me something that takes you a long while to say, in many words please."}
            try:
                urllib.request.urlopen(house.request(f"/api/chats/{chat}/messages", body, "text/event-stream")).read()
            except OSError:
                pass

        talks = [threading.Thread(target=talk, args=(chat,)) for chat in chats]
        for talk in talks:
            talk.start()
        time.sleep(0.15)
        code, took = house.stop()
        for line in streams:
            line.close()
        again = House.__new__(House)
        command = [binary, "serve", "--port", "0", "--dir", folder, "-m", "builtin"]
        again.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        again.base = next(m.group(0) for m in (re.search(r"http://[0-9.:]+", l) for l in again.process.stdout) if m)
        again.token = house.token
        ends = []
        for chat in chats:
            messages = again.call(f"/api/chats/{chat}/messages")["messages"]
            ends += [m.get("finish_reason") for m in messages if not m["is_user"]]
        again.stop()
        print(f"| SIGTERM with 100 streams and 4 generations: seconds to exit {code} | {took:.2f} | 5 |")
        print(f"| the same: replies stored, as | {len(ends)}: {', '.join(sorted(map(str, ends)))} | 4 |")


class Peer:
    """A server that runs already."""

    def __init__(self, name, base):
        self.name, self.base, self.key = name, base.rstrip("/"), os.environ.get("KEY", "none")
        try:
            body = {"email": f"bench{random.randrange(10**9)}@example.org", "password": PASSWORD}
            request = urllib.request.Request(f"{self.base}/api/auth/signup", json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            self.key = json.load(urllib.request.urlopen(request, timeout=60))["session_token"]
        except urllib.error.HTTPError:
            pass

    def write(self, prompt, n, seed, moments, stop=None):
        """Goes on from a prompt and returns the text; `moments` gets the time of every token."""
        # Letters only: their tokens are read again as they were written.
        body = {"prompt": prompt, "max_tokens": n, "seed": seed, "temperature": 1.0, "stream": True,
                "logit_bias": {str(letter): 100 for letter in LETTERS}}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(f"{self.base}/v1/completions", json.dumps(body).encode(), headers)
        text = ""
        with urllib.request.urlopen(request, timeout=600) as answer:
            for line in answer:
                if not line.startswith(b"data: {"):
                    continue
                choices = json.loads(line[6:]).get("choices")
                piece = choices[0].get("text") if choices else None
                if piece:
                    text += piece
                    moments += [time.monotonic()] * len(piece)
                if stop and stop.is_set():
                    break
        return text


ARRIVAL_S = 40
LETTERS = range(ord("a"), ord("z") + 1)


def letters(seed, n):
    return "".join(chr(c) for c in random.Random(seed).choices(LETTERS, k=n))


def chat(peer, round_no, turns=20, n_in=40, n_out=60):
    """Mean time to the first token of turns 2 to the last, in ms."""
    prompt, first = "", []
    for turn in range(turns):
        prompt += letters(f"{round_no} {turn}", n_in)
        moments, began = [], time.monotonic()
        prompt += peer.write(prompt, n_out, turn, moments)
        first.append(1e3 * (moments[0] - began))
    return {"mean TTFT of turns 2 on, ms": statistics.mean(first[1:])}


def together(peer, round_no, people=8, n_in=512, n_out=128, arrival=None):
    """Output tokens/s of all; with `arrival`, the gaps between tokens while a prompt of so many tokens is read."""
    written, stop = [[] for _ in range(people)], threading.Event()
    # They write until the long prompt is read, or their context is full.
    n_wanted = 16 * n_out if arrival else n_out

    def person(i):
        peer.write(letters(f"{round_no} {i} {arrival}", n_in), n_wanted, i, written[i], stop)

    threads = [threading.Thread(target=person, args=(i,)) for i in range(people)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    if arrival is None:
        for thread in threads:
            thread.join()
        rate = sum(map(len, written)) / (time.monotonic() - began)
        return {f"{people} at once, {n_in} in, {n_out} out: output tokens/s": rate}
    while min(map(len, written)) < 8:
        time.sleep(0.05)
    start, read = time.monotonic(), []
    long = threading.Thread(target=peer.write, args=(letters(f"{round_no} long", arrival), 1, 0, read))
    long.start()
    # The gaps of so many seconds are enough to know.
    long.join(ARRIVAL_S)
    end = time.monotonic()
    stop.set()
    for thread in [*threads, long]:
        thread.join()
    gaps = sorted(b - a for line in written for a, b in zip(line, line[1:]) if b > start and a < end)
    return {f"p95 between tokens while {arrival:,} tokens arrive, ms": 1e3 * gaps[int(0.95 * len(gaps))],
            "the same: longest, ms": 1e3 * gaps[-1],
            "the same: tokens written a second": len(gaps) / (end - start),
            f"the same: first token of the long one, s (at most {ARRIVAL_S} beside the others)": read[0] - start}


def peers(arguments):
    servers = [Peer(*url.split("=", 1)) for url in arguments.url]
    loads = {"chat": chat, "together": together, "arrival": lambda peer, i: together(peer, i, arrival=4096)}
    found = {}
    for round_no in range(arguments.rounds):
        for name in arguments.load:
            for peer in servers[round_no % len(servers):] + servers[:round_no % len(servers)]:
                for measure, value in loads[name](peer, f"{arguments.seed} {round_no}").items():
                    found.setdefault(measure, {}).setdefault(peer.name, []).append(value)
                    print(f"{peer.name}: {measure}: {value:.1f}", file=sys.stderr)
    names = [peer.name for peer in servers]
    print("| load | " + " | ".join(names) + " |\n| --- |" + " ---: |" * len(names))
    for measure, values in found.items():
        cells = [f"{statistics.median(values[n]):.1f} ({min(values[n]):.1f} to {max(values[n]):.1f})" for n in names]
        print(f"| {measure} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", help="mommygpt, of a release build")
    parser.add_argument("--url", action="append", metavar="NAME=URL", help="a server that runs; the first is ours")
    parser.add_argument("--load", action="append", choices=["chat", "together", "arrival"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.url:
        arguments.load = arguments.load or ["chat", "together", "arrival"]
        return peers(arguments)
    root = Path(__file__).resolve().parent.parent
    binary = arguments.binary or str(root / "target/release/mommygpt")
    print("| measure | figure | aim |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        house = House(binary, folder)
        overhead(house)
        idle_streams(house)
        house.stop()
    termination(binary)


main()
