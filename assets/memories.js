// What the parent remembers: to be seen, corrected and forgotten.

import { api } from "./api.js";
import { field, h, iconButton, replace, shortTime } from "./dom.js";
import { toast, toastError, whileBusy } from "./overlays.js";
import { hear, parentName, state } from "./state.js";

const MAX_MEMORY_CHARS = 300;
let shown = null;

export function setUpMemories() {
  hear("memory", (memory) => {
    if (shown?.root.isConnected) return memoriesSection(shown.root, shown.close).catch(() => {});
    if (memory?.content && memory.message_id) toast(`${parentName()} will remember: ${memory.content}`);
  });
}

export async function memoriesSection(root, close) {
  shown = { root, close };
  const memories = await api.memories();
  const text = h("input", { type: "text", maxlength: MAX_MEMORY_CHARS, placeholder: "My sister is called Lena." });
  const submit = h("button", { type: "submit", class: "button primary", text: "Remember this" });
  const form = h("form", { class: "inline-form" }, field("Something to remember", text), submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (text.value.trim() === "") return text.focus();
    whileBusy(submit, async () => {
      await api.createMemory(text.value.trim());
      await memoriesSection(root, close);
    }).catch(toastError);
  });
  replace(root,
    h("p", { text: `Short facts that ${parentName()} keeps from what you said. Nothing else is carried from one chat to the next.` }),
    memories.length === 0 && h("p", { class: "empty-list", text: "Nothing yet." }),
    h("ul", { class: "rows" }, memories.map((memory) => memoryRow(memory, root, close))),
    form);
}

function memoryRow(memory, root, close) {
  const row = h("li", { class: "row" });
  const origin = memory.chat_id && state.chats.has(memory.chat_id)
    ? h("button", { type: "button", class: "link-button", text: "from this message", onclick: () => {
      close();
      location.hash = `#/c/${memory.chat_id}/${memory.message_id}`;
    } })
    : memory.chat_id ? "from a chat" : "you typed it in";
  const forgetIt = async () => {
    row.hidden = true;
    try {
      await api.deleteMemory(memory.id);
      row.remove();
    } catch (error) {
      row.hidden = false;
      toastError(error);
    }
  };
  replace(row,
    h("div", { class: "row-text" }, h("span", { class: "row-title", text: memory.content }), h("span", { class: "hint" }, origin, ` · ${shortTime(memory.created_at)}`)),
    iconButton("edit", "Change", () => editRow(row, memory, root, close)),
    iconButton("trash", "Forget", forgetIt));
  return row;
}

function editRow(row, memory, root, close) {
  const input = h("input", { type: "text", value: memory.content, maxlength: MAX_MEMORY_CHARS, "aria-label": "Memory" });
  const submit = h("button", { type: "submit", class: "button primary small", text: "Save" });
  const cancel = h("button", { type: "button", class: "button small", text: "Cancel", onclick: () => row.replaceWith(memoryRow(memory, root, close)) });
  const form = h("form", { class: "row-form" }, input, cancel, submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(submit, async () => {
      await api.updateMemory(memory.id, input.value.trim());
      await memoriesSection(root, close);
    }).catch(toastError);
  });
  replace(row, form);
  input.focus();
}
