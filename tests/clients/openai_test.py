"""The openai package as people use it: only the base URL differs."""

import json
import os

import openai

client = openai.OpenAI(base_url=os.environ["MOMMYGPT_TEST_URL"] + "/v1", api_key=os.environ["MOMMYGPT_TEST_KEY"],
                       max_retries=0, timeout=120)
model = client.models.list().data[0].id
turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "I had a bad day"}]

# Whole.
answer = client.chat.completions.create(model=model, messages=turns, seed=7, max_completion_tokens=24)
text = answer.choices[0].message.content
assert text and answer.choices[0].finish_reason in ("stop", "length"), answer
usage = answer.usage
assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
assert usage.prompt_tokens_details.cached_tokens == 0, usage

# The same seed says the same, streamed, and the prompt is known by now.
stream = client.chat.completions.create(model=model, messages=turns, seed=7, max_completion_tokens=24, stream=True,
                                        stream_options={"include_usage": True})
pieces, last = [], None
for chunk in stream:
    if chunk.choices:
        pieces.append(chunk.choices[0].delta.content or "")
    last = chunk
assert "".join(pieces) == text, (pieces, text)
assert len(pieces) > 2, pieces
assert last.usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1, last

# Probabilities.
told = client.chat.completions.create(model=model, messages=turns, max_tokens=4, logprobs=True, top_logprobs=2)
content = told.choices[0].logprobs.content
assert len(content) == told.usage.completion_tokens and all(len(t.top_logprobs) == 2 for t in content), told
assert all(t.logprob <= 0 for t in content), told

# JSON by schema, by the helper that parses it.
schema = {"type": "object", "properties": {"mood": {"enum": ["good", "bad"]}, "score": {"type": "integer",
          "minimum": 0, "maximum": 9}}, "required": ["mood", "score"], "additionalProperties": False}
form = {"type": "json_schema", "json_schema": {"name": "mood", "strict": True, "schema": schema}}
for seed in range(3):
    made = client.chat.completions.create(model=model, messages=turns, response_format=form, seed=seed, temperature=1)
    value = json.loads(made.choices[0].message.content)
    assert value["mood"] in ("good", "bad") and 0 <= value["score"] <= 9, value
form = {"type": "json_object"}
made = client.chat.completions.create(model=model, messages=turns, response_format=form, max_tokens=40)
assert made.choices[0].message.content.lstrip().startswith("{"), made

# Plain text.
once = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, stop=["\n"], logprobs=1)
assert once.choices[0].text and once.choices[0].logprobs.tokens, once
assert "".join(c.choices[0].text for c in client.completions.create(
    model=model, prompt="Once upon a time", max_tokens=8, temperature=0, stream=True))

# Refusals arrive as the exceptions that people catch.
def refused(kind, param, **fields):
    try:
        client.chat.completions.create(**{"model": model, "messages": turns, **fields})
    except kind as error:
        assert error.param == param or param is None, (error.param, param)
        return error
    raise AssertionError(f"not refused: {fields}")

refused(openai.BadRequestError, "n", n=2)
refused(openai.BadRequestError, "temperature", temperature=-1)
refused(openai.BadRequestError, "response_format", response_format={
    "type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "color"}}})
refused(openai.NotFoundError, None, model="gpt-4")
refused(openai.BadRequestError, None, extra_body={"chat_template": "{{ evil }}"})
try:
    openai.OpenAI(base_url=client.base_url, api_key="wrong", max_retries=0).models.list()
    raise AssertionError("a wrong key opened the door")
except openai.AuthenticationError:
    pass

# Embeddings: from models that have them; others say so.
try:
    given = client.embeddings.create(model=model, input=["good night", "sleep well"])
    lengths = {len(e.embedding) for e in given.data}
    assert len(given.data) == 2 and len(lengths) == 1 and given.usage.prompt_tokens > 2, given
except openai.BadRequestError as error:
    assert error.param == "model", error
print("openai: good")
