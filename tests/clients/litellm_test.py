"""litellm, which many programs put between themselves and a model."""

import os

import litellm

litellm.telemetry = False
where = {"api_base": os.environ["MOMMYGPT_TEST_URL"] + "/v1", "api_key": os.environ["MOMMYGPT_TEST_KEY"],
         "num_retries": 0, "timeout": 120}
import openai
model = openai.OpenAI(base_url=where["api_base"], api_key=where["api_key"]).models.list().data[0].id
turns = [{"role": "user", "content": "I cannot sleep"}]

answer = litellm.completion(model=f"openai/{model}", messages=turns, max_tokens=12, seed=3, **where)
text = answer.choices[0].message.content
assert text and answer.usage.completion_tokens > 0, answer
stream = litellm.completion(model=f"openai/{model}", messages=turns, max_tokens=12, seed=3, stream=True, **where)
assert "".join(c.choices[0].delta.content or "" for c in stream) == text
try:
    litellm.completion(model=f"openai/{model}", messages=turns, n=3, **where)
    raise AssertionError("three answers were not refused")
except litellm.BadRequestError as error:
    assert "must be 1" in str(error), error
print("litellm: good")
