// Hearing of what happens on the person's other devices: one stream of everything, while this page can be seen.

import { api } from "./api.js";
import { dropChat, loadChats, putChat } from "./chats.js";
import { $ } from "./dom.js";
import { toast } from "./overlays.js";
import { state, tell } from "./state.js";

const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 15_000;
/** A hidden page lets go of its stream after this time: a browser has six connections per server, for all its tabs. */
const HIDDEN_MS = 20_000;
/** So many failures in a row before the page says that it is cut off. */
const FAILURES_BEFORE_SAYING = 2;

let controller = null;
let lastEventId = null;
let wake = () => {};

export function startLive() {
  stopLive();
  lastEventId = null;
  controller = new AbortController();
  listen(controller.signal);
}

export function stopLive() {
  controller?.abort();
  controller = null;
  wake();
  showConnected(true);
}

let hiddenTimer = null;
let pause = null;

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(() => pause?.abort(), HIDDEN_MS);
  else wake();
});
addEventListener("online", () => wake());

async function listen(signal) {
  let failures = 0;
  let missed = false;
  while (!signal.aborted) {
    if (document.hidden) await sleepUntilWoken(null);
    if (signal.aborted) return;
    pause = new AbortController();
    const end = () => pause.abort();
    signal.addEventListener("abort", end);
    try {
      const events = await api.events(lastEventId, pause.signal);
      if (missed && lastEventId === null) await resync();
      failures = 0;
      missed = true;
      showConnected(true);
      for await (const event of events) {
        if (event.id !== null) lastEventId = event.id;
        take(event);
      }
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
    } finally {
      signal.removeEventListener("abort", end);
    }
    if (pause.signal.aborted) continue;
    failures += 1;
    if (failures > FAILURES_BEFORE_SAYING) showConnected(false);
    const wait = Math.min(MAX_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(failures, 10));
    await sleepUntilWoken(wait * (0.75 + Math.random() / 2));
  }
}

function sleepUntilWoken(ms) {
  return new Promise((resolve) => {
    wake = resolve;
    if (ms !== null) setTimeout(resolve, ms);
  });
}

function showConnected(connected) {
  $("connection").hidden = connected;
  $("connection").textContent = connected ? "" : "Not connected, trying again…";
}

async function resync() {
  await Promise.all([loadChats(), state.current?.load()]);
  tell("memory");
}

function take({ event, data }) {
  if (event === "chat") putChat(data);
  else if (event === "chat_deleted") chatDeleted(data.id ?? data.chat_id);
  else if (event === "message" || event === "done") message(data);
  else if (event === "delta") delta(data);
  else if (event === "memory" || event === "memory_deleted") tell("memory", data);
  else if (event === "resync") resync().catch(() => {});
}

function chatDeleted(id) {
  const chat = state.chats.get(id);
  const here = state.leaving.has(id);
  if (chat && !here && state.current?.id === id) toast(`“${chat.title}” was deleted on another device.`);
  dropChat(id);
  state.conversations.delete(id);
}

function message(stored) {
  if (!state.chats.has(stored.chat_id)) api.chat(stored.chat_id).then(putChat).catch(() => {});
  const conversation = state.conversations.get(stored.chat_id);
  conversation?.heard(stored);
  if (!stored.is_user && !stored.finish_reason && conversation === state.current) conversation?.heardDelta(stored.id);
}

function delta({ chat_id: chatId, id }) {
  if (state.current?.id === chatId) state.current.heardDelta(id);
}
