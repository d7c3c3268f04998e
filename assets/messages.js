// The conversation on the screen: the messages of the branch that is shown, and what is going on below them.

import { announce, announceAnswer } from "./announce.js";
import { $, copyButton, h, icon, iconButton, replace, shortTime } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { toastError } from "./overlays.js";
import { safetyCard } from "./safety.js";
import { hear, parentName, state } from "./state.js";
import { siblingIndex } from "./tree.js";
import { editor } from "./composer.js";

/** Nearer than this to the end, the reader is taken to be reading along. */
const NEAR_END_PX = 60;

let views = new Map();
let shownChat = null;
let readingAlong = true;
/** Where the reader's window was last seen or put. */
let windowTop = 0;
let frame = null;
let editing = null;

export function setUpMessages() {
  const scroller = $("scroller");
  hear("messages", (conversation) => conversation === state.current && render());
  hear("run", (conversation) => conversation === state.current && render());
  hear("done", (conversation) => {
    if (conversation !== state.current) return;
    const last = conversation.messages.get(conversation.leaf);
    if (last && !last.is_user) announceAnswer(last.id, last.content, true);
    render();
  });
  hear("delta", (conversation) => {
    if (conversation !== state.current || frame !== null) return;
    frame = requestAnimationFrame(() => {
      frame = null;
      renderGrowing();
    });
  });
  hear("current", () => {
    readingAlong = true;
    editing = null;
    render();
  });
  scroller.addEventListener("scroll", () => {
    // The event of our own scrolling comes late and says nothing about the reader: taken for theirs, it would undo a
    // wheel that was turned in between.
    if (scroller.scrollTop === windowTop) return;
    const up = scroller.scrollTop < windowTop;
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    readingAlong = below < (up ? 1 : NEAR_END_PX); // upwards with nothing below: the page became shorter
    windowTop = scroller.scrollTop;
    showJump();
  }, { passive: true });
  scroller.addEventListener("wheel", (event) => {
    if (event.deltaY < 0) readingAlong = false;
  }, { passive: true });
  replace($("jump"), icon("down"));
  $("jump").addEventListener("click", () => {
    readingAlong = true;
    keepUp();
  });
  $("load-earlier").addEventListener("click", loadEarlier);
  new ResizeObserver(() => keepUp()).observe($("log"));
}

async function loadEarlier() {
  const scroller = $("scroller");
  const fromEnd = scroller.scrollHeight - scroller.scrollTop;
  try {
    await state.current?.loadEarlier();
  } catch (error) {
    toastError(error);
  }
  scroller.scrollTop = scroller.scrollHeight - fromEnd;
  windowTop = scroller.scrollTop;
}

function keepUp() {
  const scroller = $("scroller");
  if (readingAlong && state.current) {
    scroller.scrollTop = scroller.scrollHeight;
    windowTop = scroller.scrollTop;
  }
  showJump();
}

function showJump() {
  $("jump").hidden = readingAlong || !state.current;
}

/** The reader wants to see what happens next: they sent something. */
export function followAnswer() {
  readingAlong = true;
}

function render() {
  const conversation = state.current;
  const log = $("log");
  if (conversation?.id !== shownChat) {
    views = new Map();
    shownChat = conversation?.id ?? null;
    log.replaceChildren();
  }
  $("load-earlier").hidden = !conversation?.nextCursor;
  if (!conversation) return showJump();
  const path = conversation.path();
  const last = path.at(-1);
  // An answer without a word yet is a row that says so, not an empty letter.
  if (conversation.run && last && !last.is_user && last.content === "" && !last.finish_reason) path.pop();
  const index = siblingIndex(conversation.messages);
  const rows = path.map((message, i) => {
    const view = views.get(message.id) ?? new MessageView(message.id);
    views.set(message.id, view);
    view.update(conversation, message, path[i - 1], { all: index.of(message), isLast: i === path.length - 1 });
    return view.element;
  });
  rows.push(...whatGoesOn(conversation, path));
  place(log, rows);
  keepUp();
}

/** Only the answer that grows; everything else stands as it was. */
function renderGrowing() {
  const conversation = state.current;
  const message = conversation?.messages.get(conversation.run?.replyId);
  const view = message && views.get(message.id);
  if (!view?.element.isConnected) return render();
  view.grow(message);
  keepUp();
}

/** Puts `rows` into `list` in order, moving only what is not in its place, so that focus and selection survive. */
function place(list, rows) {
  const wanted = new Set(rows);
  for (const child of [...list.children]) if (!wanted.has(child)) child.remove();
  rows.forEach((row, i) => {
    if (list.children[i] !== row) list.insertBefore(row, list.children[i] ?? null);
  });
}

function whatGoesOn(conversation, path) {
  const { run, problem } = conversation;
  const rows = [];
  const quiet = run?.joining && run.progress === null && run.lastEventId === null;
  const last = path.at(-1);
  if (run && !quiet && run.replyId === null) rows.push(waitingRow(run));
  if (problem && !run) {
    rows.push(h("li", { class: "trouble", role: "alert" }, h("p", { text: problem.text }),
      h("button", { type: "button", class: "button", onclick: problem.retry }, icon("redo"), "Try again")));
  } else if (!run && last?.is_user && !last.status) {
    rows.push(h("li", { class: "trouble" }, h("p", { text: "There is no answer to this yet." }),
      h("button", { type: "button", class: "button", onclick: () => conversation.deliver(last.id) }, icon("redo"), "Ask again")));
  }
  return rows;
}

/** Where an answer is that has no words yet: in the queue, or being read. */
function waitingRow(run) {
  const { queue_position: queue, prompt_tokens: total, cached_tokens: cached = 0, processed_tokens: processed = 0 } = run.progress ?? {};
  const row = waitingRow.row ??= h("li", { class: "waiting" });
  let text = `${parentName()} is listening`;
  let bar = null;
  if (run.stopping) text = "Stopping";
  else if (run.waitS) text = `${parentName()} is busy; trying again in ${run.waitS} s`;
  else if (queue > 0) text = queue === 1 ? "You are next in line" : `${queue} are before you in line`;
  else if (total > 0) {
    const done = Math.min(1, (cached + processed) / total);
    text = done < 1 ? `${parentName()} is reading` : `${parentName()} is thinking`;
    if (done < 1) bar = h("progress", { max: 1, value: done, "aria-label": "Reading your message" });
  }
  if (row.dataset.said !== text) {
    row.dataset.said = text;
    announce(`${text}.`);
  }
  replace(row, h("span", { class: "parent-mark", "aria-hidden": "true" }), h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), h("span", { class: "waiting-text", text }), bar);
  return row;
}

class MessageView {
  constructor(id) {
    this.id = id;
    this.element = h("li", { class: "message", "data-id": id });
    this.words = null;
    this.shown = null;
    this.openTimings = false;
  }

  grow(message) {
    this.#show(message);
    this.shown.message = message;
    announceAnswer(message.id, message.content, false);
  }

  update(conversation, message, before, { all, isLast }) {
    const busy = Boolean(conversation.run);
    const key = JSON.stringify([all.length, all.indexOf(message.id), isLast, busy, editing === message.id, parentName(), before?.safety ?? null, this.openTimings]);
    const same = this.shown && this.shown.key === key && sameBut(this.shown.message, message);
    if (same) {
      if (this.shown.message.content !== message.content) this.#show(message);
    } else {
      this.#build(conversation, message, before, { all, busy, isLast });
    }
    if (message.writing) announceAnswer(message.id, message.content, false);
    this.shown = { key, message };
  }

  #show(message) {
    if (message.is_user) this.words.textContent = message.content;
    else showMarkdown(this.words, message.content);
  }

  #build(conversation, message, before, place) {
    this.element.className = ["message", message.is_user ? "mine" : "parents", message.status ?? "", place.isLast ? "last" : "", message.writing ? "writing" : ""].join(" ").trim();
    // The words keep their element, or selecting text while an answer is written would be lost.
    this.words ??= h("div", { class: message.is_user ? "bubble" : "words", dir: message.is_user ? "auto" : null });
    this.#show(message);
    const who = message.is_user ? "You" : parentName();
    const head = message.is_user
      ? h("h3", { class: "sr-only", text: who })
      : h("h3", { class: "who" }, h("span", { class: "parent-mark", "aria-hidden": "true" }), who, message.source === "written" && writtenMark());
    if (editing === message.id) {
      replace(this.element, head, this.#editForm(conversation, message));
      return;
    }
    const card = message.safety && before?.safety !== message.safety && safetyCard(message.safety);
    replace(this.element, head, this.words, notes(conversation, message, place), this.#foot(conversation, message, place), card);
  }

  #foot(conversation, message, { all, busy }) {
    if (message.status || message.writing) return null;
    const at = all.indexOf(message.id);
    const rebuild = () => {
      this.shown = null;
      render();
    };
    return h("div", { class: "foot" },
      all.length > 1 && h("span", { class: "versions", role: "group", "aria-label": "Versions" },
        iconButton("left", "Earlier version", () => conversation.switchSibling(message.id, -1), { disabled: at === 0 || busy }),
        h("span", { class: "version", text: `${at + 1}/${all.length}`, "aria-label": `Version ${at + 1} of ${all.length}` }),
        iconButton("right", "Later version", () => conversation.switchSibling(message.id, 1), { disabled: at === all.length - 1 || busy })),
      h("span", { class: "acts" },
        copyButton("Copy", () => message.content),
        message.is_user && iconButton("edit", "Edit and ask again", () => startEditing(message.id), { disabled: busy }),
        !message.is_user && iconButton("redo", "Another answer", () => {
          followAnswer();
          conversation.regenerate(message.id);
        }, { disabled: busy }),
        message.timings && iconButton("info", "How fast this answer was", () => {
          this.openTimings = !this.openTimings;
          rebuild();
        }, { "aria-expanded": String(this.openTimings) }),
        h("time", { datetime: message.created_at, text: shortTime(message.created_at) })),
      this.openTimings && message.timings && h("p", { class: "timings", text: timingWords(message.timings) }));
  }

  #editForm(conversation, message) {
    return editor(message.content, {
      save: (content) => {
        editing = null;
        followAnswer();
        if (content.trim() === "" || content === message.content) render();
        else conversation.edit(message.id, content);
      },
      cancel: () => {
        editing = null;
        render();
        this.element.querySelector(".foot button[aria-label^='Edit']")?.focus();
      },
    });
  }
}

/** Whether nothing but the text has changed. */
function sameBut(a, b) {
  return a.status === b.status && a.finish_reason === b.finish_reason && a.writing === b.writing && a.safety === b.safety && a.error === b.error && Boolean(a.timings) === Boolean(b.timings);
}

export function startEditing(id) {
  editing = id;
  render();
}

/** Edits the person's last message, as the keyboard shortcut does. */
export function editLast() {
  const last = state.current?.path().findLast((message) => message.is_user);
  if (last && !last.status && !state.current.run) startEditing(last.id);
}

function writtenMark() {
  return h("span", { class: "written", title: "Taken over whole from the answers that were written for MommyGPT beforehand", text: "a written answer" });
}

function notes(conversation, message, { isLast, busy }) {
  const again = (label) => isLast && !busy && h("button", { type: "button", class: "link-button", text: label, onclick: () => conversation.regenerate(message.id) });
  const found = [];
  if (message.status === "failed") {
    found.push(h("p", { class: "note error", role: "alert" }, `Not sent. ${message.error} `, h("button", { type: "button", class: "link-button", text: "Try again", onclick: () => conversation.deliver(message.id) })));
  }
  if (message.finish_reason === "cancelled") found.push(h("p", { class: "note" }, "You stopped this answer. ", again("Ask again")));
  if (message.finish_reason === "length") found.push(h("p", { class: "note", text: "This answer reached its longest length." }));
  const lost = !message.is_user && !message.finish_reason && !message.writing && !conversation.run && !conversation.problem;
  if (message.finish_reason === "error" || lost) found.push(h("p", { class: "note error" }, "This answer broke off. ", again("Try again")));
  if (message.truncated) found.push(h("p", { class: "note", text: `This chat is long: ${parentName()} could not see its oldest part when answering.` }));
  return found;
}

/** "34 tokens at 28.1 tokens/s, after reading 120 (80 of them remembered) in 0.4 s" */
function timingWords(timings) {
  const seconds = (ms) => `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  const rate = timings.predicted_per_second ?? (timings.predicted_ms > 0 ? (timings.predicted_n * 1000) / timings.predicted_ms : null);
  const remembered = timings.cache_n > 0 ? ` and remembering ${timings.cache_n}` : "";
  return [
    `${timings.predicted_n} tokens in ${seconds(timings.predicted_ms)}`,
    rate && `${rate.toFixed(1)} tokens/s`,
    `after reading ${timings.prompt_n}${remembered} in ${seconds(timings.prompt_ms)}`,
  ].filter(Boolean).join(" · ");
}

/** Scrolls to a message and marks it for a moment; loads older pages until it is there. */
export async function showMessage(conversation, id) {
  while (!conversation.messages.has(id) && (await conversation.loadEarlier()));
  if (!conversation.messages.has(id)) return;
  readingAlong = false;
  if (!conversation.path().some((message) => message.id === id)) conversation.show(id);
  const element = views.get(id)?.element;
  readingAlong = false;
  element?.scrollIntoView({ block: "center" });
  element?.classList.add("found");
  setTimeout(() => element?.classList.remove("found"), 2500);
}
