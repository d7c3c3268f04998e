// A server that plays the wire on purpose: it cuts its streams at every byte, breaks them, lets people queue, and
// says what a test wants a model to say. It is for what the real server cannot be made to do on command; everything
// else is tested against the real one.

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import http from "node:http";
import path from "node:path";

export const CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml" };
const now = () => new Date().toISOString().replace("Z", "000Z");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Starts it on a free port. `options`, which a test may change while it runs:
 * `reply(text)` gives the answer's deltas; `cut` = bytes per network write (0: whole events); `pauseMs` between deltas;
 * `breakAfter` = deltas after which a stream's connection is cut once; `refuse` = a list of statuses for the next sends; `deaf` = store what is sent, and break the line instead of answering;
 * `queue` = positions to report first; `next()` = what to wait for before the answer goes on, `pauseMs` if absent; `safety(text)` = a kind of danger.
 */
export async function startDouble(assets, options = {}) {
  const house = {
    user: { id: randomUUID(), email: "ada@example.org", full_name: "Ada", avatar_url: null, role: "admin", persona: "mom", created_at: now(), updated_at: now() },
    signedIn: true, chats: new Map(), messages: new Map(), runs: new Map(), devices: new Set(), memories: [], nextEvent: 1, requests: [],
  };
  const set = { reply: (text) => [`You said: ${text}`], cut: 0, pauseMs: 0, breakAfter: null, refuse: [], deaf: false, queue: [], safety: () => null, next: () => pause(set.pauseMs), ...options };
  const server = http.createServer((request, response) => handle(house, set, assets, request, response).catch((error) => {
    if (!response.headersSent) send(response, 500, { error: { code: "double", message: String(error) } });
    else response.destroy();
  }));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}`;
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url, house, set, close };
}

function head(response, status, type, more = {}) {
  response.writeHead(status, { "content-type": type, "content-security-policy": CSP, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store", ...more });
}

function send(response, status, body, more) {
  if (body === undefined) {
    head(response, status, "text/plain", more);
    return response.end();
  }
  head(response, status, "application/json", more);
  response.end(JSON.stringify(body));
}

const refusal = (response, status, code, message, more) => send(response, status, { error: { code, message } }, more);

async function body(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? {} : JSON.parse(text);
}

async function handle(house, set, assets, request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://double");
  house.requests.push(`${request.method} ${pathname}`);
  if (!pathname.startsWith("/api/")) return file(assets, pathname, response);
  const [, , first, second, third, fourth, fifth] = pathname.split("/");
  const data = request.method === "GET" ? null : await body(request);
  if (first === "auth") {
    house.signedIn = second !== "signout";
    return send(response, second === "signout" ? 204 : 200, second === "signout" ? undefined : { user: house.user, session_token: "x", recovery_code: second === "signin" ? undefined : "ABCD-EFGH-JKLM-NPQR-STUV-WXYZ" });
  }
  if (!house.signedIn) return refusal(response, 401, "unauthorized", "Sign in first.");
  if (first === "me") return me(house, request, response, second, data);
  if (first === "events") return events(house, request, response);
  if (first === "search") return send(response, 200, { hits: find(house, searchParams.get("q").toLowerCase()) });
  if (first === "memories") return memories(house, request, response, second, data);
  if (first === "chats") return chats(house, set, { request, response, data, id: second, part: third, messageId: fourth, verb: fifth });
  return refusal(response, 404, "not_found", "There is nothing here.");
}

async function file(assets, pathname, response) {
  const name = pathname === "/" ? "index.html" : pathname.slice(1);
  const type = TYPES[path.extname(name)];
  const text = type && !name.includes("..") && (await readFile(path.join(assets, name)).catch(() => null));
  if (!text) return refusal(response, 404, "not_found", "There is nothing here.");
  head(response, 200, type);
  response.end(text);
}

function me(house, request, response, part, data) {
  if (part) return send(response, 200, { [part]: [] });
  if (request.method === "PATCH") Object.assign(house.user, data);
  send(response, 200, house.user);
}

function memories(house, request, response, id, data) {
  if (request.method === "GET") return send(response, 200, { memories: house.memories });
  if (request.method === "POST") house.memories.push({ id: randomUUID(), content: data.content, chat_id: null, message_id: null, created_at: now(), updated_at: now() });
  if (request.method === "DELETE") house.memories = house.memories.filter((memory) => memory.id !== id);
  send(response, 200, house.memories.at(-1) ?? {});
}

function find(house, q) {
  const hits = [];
  for (const message of house.messages.values()) {
    if (message.content.toLowerCase().includes(q)) hits.push({ chat_id: message.chat_id, message_id: message.id, title: house.chats.get(message.chat_id).title, snippet: message.content.slice(0, 120), created_at: message.created_at });
  }
  return hits;
}

function events(house, request, response) {
  head(response, 200, "text/event-stream");
  response.write(": open\n\n");
  house.devices.add(response);
  request.on("close", () => house.devices.delete(response));
}

function tellDevices(house, event, data) {
  const id = house.nextEvent++;
  for (const device of house.devices) device.write(`event: ${event}\nid: ${id}\ndata: ${JSON.stringify(data)}\n\n`);
}

function touch(house, id, patch = {}) {
  const chat = { ...house.chats.get(id), ...patch, updated_at: now() };
  house.chats.set(id, chat);
  tellDevices(house, "chat", chat);
  return chat;
}

async function chats(house, set, asked) {
  const { request, response, data, id, part } = asked;
  const { method } = request;
  if (!id && method === "GET") return send(response, 200, { chats: [...house.chats.values()].sort((a, b) => (a.updated_at < b.updated_at ? 1 : -1)), next_cursor: null });
  if (!id) {
    const known = house.chats.get(data.id);
    const chat = known ?? { id: data.id ?? randomUUID(), user_id: house.user.id, title: data.title ?? "New chat", created_at: now(), updated_at: now(), pinned: false, archived: false };
    house.chats.set(chat.id, chat);
    return send(response, known ? 200 : 201, chat);
  }
  if (!house.chats.has(id)) return refusal(response, 404, "not_found", "There is nothing here.");
  if (!part && method === "DELETE") {
    house.chats.delete(id);
    tellDevices(house, "chat_deleted", { id });
    return send(response, 204);
  }
  if (!part) return send(response, 200, method === "PATCH" ? touch(house, id, data) : house.chats.get(id));
  if (part === "stop") {
    if (house.runs.has(id)) house.runs.get(id).stopped = true;
    return send(response, 204);
  }
  if (part === "stream") {
    const run = house.runs.get(id);
    if (!run) return send(response, 204);
    return replay(set, run, response, Number(request.headers["last-event-id"] ?? 0));
  }
  if (method === "GET") return send(response, 200, { messages: [...house.messages.values()].filter((message) => message.chat_id === id), next_cursor: null });
  if (set.deaf) {
    house.messages.set(data.id, { id: data.id, chat_id: id, parent_id: data.parent_id ?? null, content: data.content, is_user: true, created_at: now() });
    return response.destroy();
  }
  const status = set.refuse.shift();
  if (status) return refusal(response, status, "busy", "Somebody else is speaking just now.", status === 503 ? { "retry-after": "1" } : {});
  return generate(house, set, asked);
}

function generate(house, set, { request, response, data, id, messageId, verb }) {
  let asked = house.messages.get(data?.id) ?? null;
  const old = house.messages.get(messageId);
  if (verb === "regenerate") asked = house.messages.get(old.parent_id);
  else if (!asked) {
    asked = { id: data.id ?? randomUUID(), chat_id: id, parent_id: request.method === "PUT" ? old.parent_id : data.parent_id ?? null, content: data.content, is_user: true, created_at: now() };
    const danger = set.safety(asked.content);
    if (danger) asked.safety = danger;
    house.messages.set(asked.id, asked);
    tellDevices(house, "message", asked);
    if (house.chats.get(id).title === "New chat") touch(house, id, { title: [...asked.content].slice(0, 100).join("") });
  }
  const run = { log: [], listeners: new Set(), stopped: false, over: false };
  house.runs.set(id, run);
  write(house, set, run, id, asked);
  return replay(set, run, response, 0);
}

/** Writes an answer into the run's log, at its own pace, whoever listens. */
async function write(house, set, run, chatId, asked) {
  const put = (event, data) => {
    run.log.push(`event: ${event}\nid: ${run.log.length + 1}\ndata: ${JSON.stringify(data)}\n\n`);
    for (const listener of run.listeners) listener();
  };
  put("message", asked);
  for (const position of set.queue) {
    put("progress", { queue_position: position });
    await set.next();
  }
  put("progress", { prompt_tokens: 100, cached_tokens: 40, processed_tokens: 30 });
  const reply = { id: randomUUID(), chat_id: chatId, parent_id: asked.id, content: "", is_user: false, created_at: now() };
  tellDevices(house, "message", reply);
  house.messages.set(reply.id, reply);
  const deltas = set.reply(asked.content);
  for (const text of deltas) {
    await set.next();
    if (run.stopped) break;
    reply.content += text;
    put("delta", { id: reply.id, text });
    tellDevices(house, "delta", { chat_id: chatId, id: reply.id, text });
  }
  const done = { ...reply, finish_reason: run.stopped ? "cancelled" : "stop", timings: { cache_n: 40, prompt_n: 60, prompt_ms: 120.5, prompt_per_second: 497.9, predicted_n: deltas.length, predicted_ms: 900, predicted_per_second: deltas.length / 0.9 } };
  house.messages.set(reply.id, done);
  run.over = true;
  house.runs.delete(chatId);
  put("done", done);
  tellDevices(house, "done", done);
  touch(house, chatId);
}

/** Sends a run's log from `from` on, cut as the test wants. */
async function replay(set, run, response, from) {
  head(response, 200, "text/event-stream");
  response.socket.setNoDelay(true);
  let at = from;
  let sent = 0;
  for (;;) {
    while (at < run.log.length) {
      if (set.breakAfter !== null && sent >= set.breakAfter) {
        set.breakAfter = null;
        return response.destroy();
      }
      await writeCut(response, Buffer.from(run.log[at]), set.cut);
      at += 1;
      sent += 1;
    }
    if (run.over) return response.end();
    await new Promise((resolve) => {
      const listener = () => {
        run.listeners.delete(listener);
        resolve();
      };
      run.listeners.add(listener);
    });
  }
}

async function writeCut(response, bytes, cut) {
  if (cut === 0) return response.write(bytes);
  for (let i = 0; i < bytes.length; i += cut) {
    response.write(bytes.subarray(i, i + cut));
    await new Promise((resolve) => setImmediate(resolve)); // each piece is a write of its own
  }
}
