// The reader of server-sent streams, with its bytes cut at every place where a network could cut them.

import assert from "node:assert/strict";
import test from "node:test";

import { SseParser, readEvents } from "../../assets/stream.js";

const encoder = new TextEncoder();
const WIRE = [
  "\u{feff}: open\n\n",
  'event: message\nid: 1\ndata: {"content":"Grüße, Käthe ä"}\n\n',
  'event: delta\r\nid: 2\r\ndata: {"text":"🫖 tee"}\r\n\r\n',
  ": still here\n\n",
  'event: delta\rid: 3\rdata: {"text":\rdata: "two lines"}\r\r',
  'data:{"text":"no blank, no name"}\n\n',
  'event: done\nid: 4\nretry: 10\nnonsense\ndata: {"text":"data: id: event:"}\n\n',
  'event: delta\nid: 9\ndata: {"text":"never finished"}',
].join("");
const EXPECTED = [
  { event: "message", data: { content: "Grüße, Käthe ä" }, id: "1" },
  { event: "delta", data: { text: "🫖 tee" }, id: "2" },
  { event: "delta", data: { text: "two lines" }, id: "3" },
  { event: "message", data: { text: "no blank, no name" }, id: "3" },
  { event: "done", data: { text: "data: id: event:" }, id: "4" },
];

function bodyOf(pieces) {
  return new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
}

async function readAll(pieces) {
  const events = [];
  for await (const event of readEvents(bodyOf(pieces))) events.push(event);
  return events;
}

test("whole, it is read as it was written", async () => {
  assert.deepEqual(await readAll([encoder.encode(WIRE)]), EXPECTED);
});

test("cut once at every byte, also inside ä, inside data: and between CR and LF", async () => {
  const bytes = encoder.encode(WIRE);
  for (let at = 0; at <= bytes.length; at += 1) {
    assert.deepEqual(await readAll([bytes.subarray(0, at), bytes.subarray(at)]), EXPECTED, `cut at byte ${at}`);
  }
});

test("in pieces of every size from one byte", async () => {
  const bytes = encoder.encode(WIRE);
  for (let size = 1; size <= 40; size += 1) {
    const pieces = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
    assert.deepEqual(await readAll(pieces), EXPECTED, `pieces of ${size}`);
  }
});

test("an event counts only when its blank line has come", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.push("data: 1\n"), []);
  assert.deepEqual(parser.push("\n"), [{ event: "message", data: "1", id: null }]);
});

test("a CR ends a line at once, and its late LF is not another", () => {
  const parser = new SseParser();
  assert.equal(parser.push("data: 1\r\r").length, 1);
  assert.equal(parser.push("\ndata: 2\n\n").length, 1);
});

test("leaving the loop lets go of the connection", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(encoder.encode("data: 1\n\ndata: 2\n\n")),
    cancel() {
      cancelled = true;
    },
  });
  for await (const event of readEvents(body)) if (event.data === 1) break;
  assert.equal(cancelled, true);
});
