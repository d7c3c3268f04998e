// Every request the page makes. Nothing else calls `fetch`.

import { readEvents } from "./stream.js";

/** What the server refused, or `status` 0 when it could not be reached. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfterS = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

let signedOut = () => {};

/** Called whenever a request finds that the session is gone. */
export function onSignedOut(callback) {
  signedOut = callback;
}

/** A random UUID. `crypto.randomUUID` is missing on plain http in the home network. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

async function open(method, path, { body, headers, signal, keepalive, quiet401 } = {}) {
  const init = { method, signal, keepalive, cache: "no-store", credentials: "same-origin", headers: { accept: "application/json", ...headers } };
  if (method !== "GET") {
    init.headers["content-type"] = "application/json";
    if (body !== undefined) init.body = typeof body === "string" ? body : JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server cannot be reached. Is it still running, and is this device on the same network?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  const retryAfterS = Number(response.headers.get("retry-after")) || null;
  const error = new ApiError(response.status, answer?.error?.code ?? `http_${response.status}`, answer?.error?.message ?? `The server answered ${response.status}.`, retryAfterS);
  if (response.status === 401 && !quiet401) signedOut();
  throw error;
}

async function json(method, path, options) {
  const response = await open(method, path, options);
  if (response.status === 204) return null;
  const text = await response.text();
  return text === "" ? null : JSON.parse(text);
}

/** A stream of `{event, data, id}`; `null` when the server has nothing to stream. */
async function stream(method, path, { lastEventId, headers, ...options } = {}) {
  const all = { ...headers, accept: "text/event-stream" };
  if (lastEventId !== null && lastEventId !== undefined) all["last-event-id"] = lastEventId;
  const response = await open(method, path, { ...options, headers: all });
  return response.status === 204 ? null : readEvents(response.body);
}

/** The list in an answer, by its name. */
const list = async (path, name) => (await json("GET", path))[name] ?? [];
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, v]) => v !== null && v !== undefined)).toString();
const quiet = { quiet401: true };

export const api = {
  me: (options) => json("GET", "/api/me", options),
  updateMe: (patch) => json("PATCH", "/api/me", { body: patch }),
  signUp: (body) => json("POST", "/api/auth/signup", { body, ...quiet }),
  signIn: (body) => json("POST", "/api/auth/signin", { body, ...quiet }),
  recover: (body) => json("POST", "/api/auth/recover", { body, ...quiet }),
  signOut: () => json("POST", "/api/auth/signout", quiet),
  changePassword: (body) => json("POST", "/api/me/password", { body, ...quiet }),

  sessions: () => list("/api/me/sessions", "sessions"),
  endSession: (id) => json("DELETE", `/api/me/sessions/${id}`),
  keys: () => list("/api/me/keys", "keys"),
  createKey: (name) => json("POST", "/api/me/keys", { body: { name } }),
  deleteKey: (id) => json("DELETE", `/api/me/keys/${id}`),

  chats: (cursor) => json("GET", `/api/chats?${query({ limit: 50, cursor })}`),
  chat: (id) => json("GET", `/api/chats/${id}`),
  createChat: (body) => json("POST", "/api/chats", { body }),
  updateChat: (id, patch) => json("PATCH", `/api/chats/${id}`, { body: patch }),
  deleteChat: (id, options) => json("DELETE", `/api/chats/${id}`, options),
  messages: (id, before) => json("GET", `/api/chats/${id}/messages?${query({ limit: 50, before })}`),

  send: (id, body, signal) => stream("POST", `/api/chats/${id}/messages`, { body, signal }),
  regenerate: (id, messageId, signal) => stream("POST", `/api/chats/${id}/messages/${messageId}/regenerate`, { signal }),
  edit: (id, messageId, content, signal) => stream("PUT", `/api/chats/${id}/messages/${messageId}`, { body: { content }, signal }),
  resume: (id, lastEventId, signal) => stream("GET", `/api/chats/${id}/stream${lastEventId === null ? "?from=0" : ""}`, { lastEventId, signal }),
  stop: (id) => json("POST", `/api/chats/${id}/stop`),
  events: (lastEventId, signal) => stream("GET", "/api/events", { lastEventId, signal }),

  search: (q, signal) => json("GET", `/api/search?${query({ q, limit: 30 })}`, { signal }),
  safetyCard: (kind) => json("GET", `/api/safety?${query({ kind })}`),
  memories: () => list("/api/memories", "memories"),
  createMemory: (content) => json("POST", "/api/memories", { body: { content } }),
  updateMemory: (id, content) => json("PATCH", `/api/memories/${id}`, { body: { content } }),
  deleteMemory: (id) => json("DELETE", `/api/memories/${id}`),
  importAll: (text) => json("POST", "/api/import", { body: text }),

  adminStatus: () => json("GET", "/api/admin/status"),
  adminModels: () => list("/api/admin/models", "models"),
  adminSwitchModel: (name) => json("POST", "/api/admin/model", { body: { name } }),
  adminUsers: () => list("/api/admin/users", "users"),
  adminCreateUser: (body) => json("POST", "/api/admin/users", { body }),
  adminUpdateUser: (id, patch) => json("PATCH", `/api/admin/users/${id}`, { body: patch }),
  adminDeleteUser: (id) => json("DELETE", `/api/admin/users/${id}`),
  adminInvites: () => list("/api/admin/invites", "invites"),
  adminCreateInvite: (body) => json("POST", "/api/admin/invites", { body }),
  adminDeleteInvite: (id) => json("DELETE", `/api/admin/invites/${id}`),
};
