"""Runs real clients against a real server: `python3 run.py [path of the mommygpt binary]`.

Fetches what is missing first: the packages of requirements.txt into .venv, those of package-lock.json into node_modules.
Exit code 77 says that something is missing and could not be fetched.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
MISSING = 77
START_S = 120


def miss(text):
    print(f"client tests: {text}", file=sys.stderr)
    sys.exit(MISSING)


def fetch():
    python = VENV / "bin/python"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = VENV / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("client tests: pip install")
        shutil.rmtree(VENV, ignore_errors=True)
        made = subprocess.run([sys.executable, "-m", "venv", VENV])
        if made.returncode != 0:
            miss("python3 -m venv does not work here; install python3-venv.")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
        if subprocess.run(pip).returncode != 0:
            miss("pip could not fetch the clients.")
        stamp.write_text(wanted)
    if not (HERE / "node_modules/openai/package.json").exists():
        if not shutil.which("npm"):
            miss("npm is needed for the clients in JavaScript.")
        print("client tests: npm ci")
        if subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE).returncode != 0:
            miss("npm could not fetch the clients.")
    return python


def call(base, path, body, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(base + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def serve(binary, folder, *more):
    """A server with the built-in model; its address and an API key of its first person."""
    command = [binary, "serve", "--port", "0", "--dir", folder, "-m", "builtin", "--ollama", *more]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = None
    for line in server.stdout:
        found = re.search(r"http://[0-9.:]+", line)
        if found:
            address = found.group(0)
            break
    if not address:
        sys.exit("client tests: the server did not say where it is")
    person = {"email": "client@example.org", "password": "correct horse battery staple"}
    token = call(address, "/api/auth/signup", person)["session_token"]
    key = call(address, "/api/me/keys", {"name": "clients"}, token)["key"]
    return server, address, key


def replayed(binary):
    """A saved answer of a deterministic server comes again token by token, and another one is told from it."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        server, address, key = serve(binary, folder, "--deterministic")
        turns = [{"role": "user", "content": "I cannot sleep"}]
        ask = {"messages": turns, "max_tokens": 12, "return_token_ids": True}
        answer = call(address, "/v1/chat/completions", ask, key)
        server.terminate()
        server.wait(timeout=30)
        saved = Path(folder) / "answer.json"
        saved.write_text(json.dumps(answer))
        replay = [binary, "replay", str(saved), "-m", "builtin", "--dir", folder]
        if subprocess.run(replay).returncode != 0:
            failed.append("replay")
        answer["choices"][0]["token_ids"][1] += 1
        saved.write_text(json.dumps(answer))
        if subprocess.run(replay, stderr=subprocess.DEVNULL).returncode != 1:
            failed.append("replay of another answer")
    return failed


def main():
    python = fetch()
    root = HERE.parent.parent
    binary = sys.argv[1] if len(sys.argv) > 1 else str(root / "target/debug/mommygpt")
    with tempfile.TemporaryDirectory() as folder:
        server, address, key = serve(binary, folder)
        try:
            env = {**os.environ, "MOMMYGPT_TEST_URL": address, "MOMMYGPT_TEST_KEY": key, "OLLAMA_HOST": "unused",
                   # litellm asks a server of others for prices otherwise.
                   "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            failed = []
            for test in ([python, "openai_test.py"], [python, "litellm_test.py"], [python, "ollama_test.py"],
                         ["node", "openai.test.mjs"]):
                print(f"client tests: {test[-1]}", flush=True)
                if subprocess.run(test, cwd=HERE, env=env).returncode != 0:
                    failed.append(test[-1])
        finally:
            server.terminate()
            code = server.wait(timeout=30)
        if code != 0:
            failed.append(f"the server ended with {code}")
        failed += replayed(binary)
        if failed:
            sys.exit(f"client tests: failed: {', '.join(failed)}")


main()
