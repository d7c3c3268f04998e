"""The ollama package, as apps for phones and desktops use it."""

import json
import os

import ollama

client = ollama.Client(host=os.environ["MOMMYGPT_TEST_URL"],
                       headers={"Authorization": f"Bearer {os.environ['MOMMYGPT_TEST_KEY']}"}, timeout=120)
model = client.list().models[0].model
assert client.show(model).details.format == "gguf"
turns = [{"role": "user", "content": "I had a bad day"}]
options = {"seed": 5, "num_predict": 16, "temperature": 0.5}

answer = client.chat(model=model, messages=turns, options=options)
assert answer.done and answer.message.content and answer.eval_count > 0 and answer.eval_duration > 0, answer
pieces = [p.message.content for p in client.chat(model=model, messages=turns, options=options, stream=True)]
assert "".join(pieces) == answer.message.content and len(pieces) > 2, pieces
assert client.generate(model=model, prompt="Once upon a time", raw=True, options=options).response
schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}}, "required": ["mood"],
          "additionalProperties": False}
made = client.chat(model=model, messages=turns, format=schema)
assert json.loads(made.message.content)["mood"] in ("good", "bad"), made
try:
    client.chat(model="llama3", messages=turns)
    raise AssertionError("another model answered")
except ollama.ResponseError as error:
    assert error.status_code == 404, error
try:
    ollama.Client(host=os.environ["MOMMYGPT_TEST_URL"]).list()
    raise AssertionError("nobody was let in")
except ollama.ResponseError as error:
    assert error.status_code == 401, error
print("ollama: good")
