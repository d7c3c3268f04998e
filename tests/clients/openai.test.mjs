// The openai package for JavaScript as people use it: only the base URL differs.

import assert from "node:assert/strict";

import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.MOMMYGPT_TEST_URL}/v1`,
  apiKey: process.env.MOMMYGPT_TEST_KEY,
  maxRetries: 0,
  timeout: 120_000,
});
const model = (await client.models.list()).data[0].id;
const messages = [{ role: "user", content: "My dog is called Biscuit" }];

const answer = await client.chat.completions.create({ model, messages, seed: 1, max_tokens: 16 });
const text = answer.choices[0].message.content;
assert.ok(text.length > 0 && answer.usage.total_tokens > answer.usage.completion_tokens);

let streamed = "";
const stream = await client.chat.completions.create({ model, messages, seed: 1, max_tokens: 16, stream: true });
for await (const chunk of stream) streamed += chunk.choices[0]?.delta?.content ?? "";
assert.equal(streamed, text);

const schema = { type: "object", properties: { name: { type: "string", maxLength: 10 } }, required: ["name"], additionalProperties: false };
const form = { type: "json_schema", json_schema: { name: "pet", strict: true, schema } };
const made = await client.chat.completions.create({ model, messages, response_format: form, max_tokens: 100 });
if (made.choices[0].finish_reason === "stop") assert.equal(typeof JSON.parse(made.choices[0].message.content).name, "string");

await assert.rejects(client.chat.completions.create({ model, messages, top_p: 2 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "top_p");
await assert.rejects(client.chat.completions.create({ model: "gpt-4", messages }), OpenAI.NotFoundError);
console.log("openai for JavaScript: good");
