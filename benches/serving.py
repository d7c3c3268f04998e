"""What the server costs beside the model: `python3 benches/serving.py [path of the mommygpt binary]`.

1,000 idle event streams (memory and processor time each), a SIGTERM with 100 streams and 4 generations running, and what
HTTP takes of the engine's tokens/s. Needs a release build; uses the built-in model and a temporary folder.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
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


def main():
    root = Path(__file__).resolve().parent.parent
    binary = sys.argv[1] if len(sys.argv) > 1 else str(root / "target/release/mommygpt")
    print("| measure | figure | aim |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        house = House(binary, folder)
        overhead(house)
        idle_streams(house)
        house.stop()
    termination(binary)


main()
