// Where one writes. Enter sends, Shift+Enter makes a new line, Esc stops the answer.

import { $, h, icon, replace } from "./dom.js";
import { hear, parentName, state } from "./state.js";

/** Drafts live as long as the tab: a disk should not hold unencrypted what somebody did not even send. */
const DRAFT = "mommygpt.draft.";
/** Taller than this share of the window, the field scrolls. */
const MAX_HEIGHT_SHARE = 0.4;
/** Phones and tablets: there Enter makes a new line, as people expect of their keyboards. */
const TOUCH = matchMedia("(hover: none) and (pointer: coarse)");

const draftKey = () => DRAFT + (state.current?.id ?? "new");

/** Grows a text field with its text. */
function fit(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(area.scrollHeight, window.innerHeight * MAX_HEIGHT_SHARE)}px`;
}

/** `send(text)` takes a message, `stop()` ends the answer. */
export function setUpComposer({ send, stop }) {
  const input = $("composer-input");
  const refresh = () => {
    const run = state.current?.run;
    const writing = Boolean(run && !(run.joining && run.lastEventId === null));
    const button = $("send");
    const mode = writing ? "stop" : "send";
    if (button.dataset.mode !== mode) {
      button.dataset.mode = mode;
      button.setAttribute("aria-label", writing ? "Stop" : "Send");
      button.title = writing ? "Stop (Esc)" : "Send (Enter)";
      replace(button, icon(mode));
    }
    button.disabled = writing ? Boolean(run.stopping) : input.value.trim() === "";
    input.placeholder = `Write to ${parentName()}…`;
    replace($("footnote"), `${parentName()} is a program on this machine, and can be wrong.`);
  };
  const submit = () => {
    const text = input.value;
    if (text.trim() === "" || $("send").dataset.mode === "stop") return;
    sessionStorage.removeItem(draftKey());
    input.value = "";
    fit(input);
    send(text);
    refresh();
  };
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if ($("send").dataset.mode === "stop") stop();
    else submit();
  });
  input.addEventListener("input", () => {
    sessionStorage.setItem(draftKey(), input.value);
    fit(input);
    refresh();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || TOUCH.matches) return;
    event.preventDefault();
    submit();
  });
  hear("current", () => {
    input.value = sessionStorage.getItem(draftKey()) ?? "";
    fit(input);
    refresh();
  });
  for (const name of ["run", "done", "messages", "me"]) hear(name, refresh);
  addEventListener("resize", () => fit(input));
}

/** Puts words into the field, for the person to change or send. */
export function suggest(text) {
  const input = $("composer-input");
  input.value = text;
  input.dispatchEvent(new Event("input"));
  input.focus();
}

export function focusComposer() {
  if (!TOUCH.matches) $("composer-input").focus({ preventScroll: true }); // a phone's keyboard would jump up
}

export function forgetDrafts() {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith(DRAFT)) sessionStorage.removeItem(key);
  $("composer-input").value = "";
}

/** A field for changing a message that was sent. */
export function editor(text, { save, cancel }) {
  const area = h("textarea", { value: text, rows: "2", "aria-label": "Change your message", maxlength: "1000000" });
  const form = h("form", { class: "edit-form" }, area,
    h("div", { class: "buttons" }, h("button", { type: "button", class: "button", text: "Cancel", onclick: cancel }), h("button", { type: "submit", class: "button primary", text: "Send" })));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    save(area.value);
  });
  area.addEventListener("input", () => fit(area));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !TOUCH.matches) {
      event.preventDefault();
      save(area.value);
    }
  });
  requestAnimationFrame(() => {
    fit(area);
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  });
  return form;
}
