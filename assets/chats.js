// The list of chats: grouped by day, with renaming, pinning, archiving, and deleting that can be taken back.

import { api } from "./api.js";
import { $, dayGroup, h, icon, iconButton, replace } from "./dom.js";
import { UNDO_MS, openMenu, toast, toastError } from "./overlays.js";
import { chatsNewestFirst, hear, state, tell } from "./state.js";

const MAX_TITLE_CHARS = 100;
let showArchived = false;
let renaming = null;

export function setUpChats() {
  hear("chats", renderChats);
  hear("current", renderChats);
  hear("run", renderChats);
  // A closed tab must not bring a deleted chat back.
  addEventListener("pagehide", () => {
    for (const id of state.leaving) api.deleteChat(id, { keepalive: true }).catch(() => {});
  });
}

export async function loadChats() {
  const page = await api.chats(null);
  const fresh = new Map(page.chats.map((chat) => [chat.id, chat]));
  // A chat that is only on this screen so far stays.
  for (const chat of state.chats.values()) if (chat.unsaved) fresh.set(chat.id, chat);
  state.chats = fresh;
  state.chatCursor = page.next_cursor ?? null;
  tell("chats");
}

async function loadMore() {
  const page = await api.chats(state.chatCursor);
  for (const chat of page.chats) state.chats.set(chat.id, chat);
  state.chatCursor = page.next_cursor ?? null;
  tell("chats");
}

export function putChat(chat) {
  state.chats.set(chat.id, chat);
  tell("chats");
}

export function dropChat(id) {
  state.chats.delete(id);
  state.leaving.delete(id);
  tell("chats");
  if (state.current?.id === id) location.hash = "#/";
}

function renderChats() {
  const nav = $("chat-list");
  if (renaming && nav.contains(renaming)) return; // typing must not be swept away by an event
  const focused = nav.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const all = chatsNewestFirst();
  const shown = all.filter((chat) => !chat.archived);
  const archived = all.filter((chat) => chat.archived);
  const groups = new Map();
  const pinned = shown.filter((chat) => chat.pinned);
  if (pinned.length > 0) groups.set("Pinned", pinned);
  for (const chat of shown.filter((other) => !other.pinned)) {
    const name = dayGroup(chat.updated_at);
    groups.set(name, [...(groups.get(name) ?? []), chat]);
  }
  replace(nav,
    [...groups].map(([name, chats]) => group(name, chats)),
    shown.length === 0 && h("p", { class: "empty-list", text: "Your chats will be listed here." }),
    state.chatCursor && h("button", { type: "button", class: "quiet-button", text: "Show older chats", onclick: () => loadMore().catch(toastError) }),
    archived.length > 0 && h("button", { type: "button", class: "quiet-button", "aria-expanded": String(showArchived), "data-focus": "archived", onclick: toggleArchived }, icon("archive"), `Archived (${archived.length})`),
    showArchived && archived.length > 0 && group("Archived", archived));
  if (focused) nav.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

function toggleArchived() {
  showArchived = !showArchived;
  renderChats();
}

function group(name, chats) {
  return h("section", { class: "chat-group" }, h("h2", { text: name }), h("ul", {}, chats.map(chatItem)));
}

function chatItem(chat) {
  const open = state.current?.id === chat.id;
  const writing = Boolean(state.conversations.get(chat.id)?.run);
  const link = h("a", { class: "chat-link", href: `#/c/${chat.id}`, "aria-current": open ? "page" : null, "data-focus": chat.id },
    chat.pinned && icon("pin"), h("span", { class: "chat-name", text: chat.title, title: chat.title }),
    writing && h("span", { class: "writing-dot", title: "An answer is being written" }, h("span", { class: "sr-only", text: "an answer is being written" })));
  const item = h("li", { class: open ? "chat-item open" : "chat-item" }, link);
  const button = iconButton("more", `More for “${chat.title}”`, () => openChatMenu(button, chat, () => renameInList(item, chat)), { class: "chat-more", "aria-haspopup": "menu", "data-focus": `${chat.id}-more` });
  if (!chat.unsaved) item.append(button);
  return item;
}

/** The menu of a chat; the same in the list and above the conversation. */
export function openChatMenu(button, chat, rename) {
  openMenu(button, `Chat “${chat.title}”`, [
    { icon: "edit", label: "Rename", run: rename },
    { icon: "pin", label: chat.pinned ? "Unpin" : "Pin", run: () => change(chat, { pinned: !chat.pinned }) },
    { icon: "archive", label: chat.archived ? "Take out of the archive" : "Archive", run: () => archive(chat) },
    { icon: "trash", label: "Delete", danger: true, run: () => deleteChat(chat) },
  ]);
}

/** Shows the change at once and takes it back if the server refuses. */
async function change(chat, patch) {
  putChat({ ...chat, ...patch });
  try {
    putChat(await api.updateChat(chat.id, patch));
  } catch (error) {
    putChat(chat);
    toastError(error);
  }
}

async function archive(chat) {
  const archived = !chat.archived;
  await change(chat, { archived });
  const now = state.chats.get(chat.id);
  if (now?.archived !== archived) return;
  toast(archived ? "Archived." : "Back in the list.", { action: { label: "Undo", run: () => change(now, { archived: !archived }) } });
}

/** Takes the chat from the screen now and from the server when the time to take it back is over. */
export function deleteChat(chat) {
  state.leaving.add(chat.id);
  tell("chats");
  const wasOpen = state.current?.id === chat.id;
  if (wasOpen) location.hash = "#/";
  const timer = setTimeout(async () => {
    try {
      await api.deleteChat(chat.id);
      dropChat(chat.id);
    } catch (error) {
      if (error.status === 404) return dropChat(chat.id);
      state.leaving.delete(chat.id);
      tell("chats");
      toastError(error);
    }
  }, UNDO_MS);
  toast(`Deleted “${chat.title}”.`, {
    action: {
      label: "Undo", run: () => {
        clearTimeout(timer);
        state.leaving.delete(chat.id);
        tell("chats");
        if (wasOpen) location.hash = `#/c/${chat.id}`;
      },
    },
  });
}

function renameInList(item, chat) {
  const input = titleInput(chat, () => {
    renaming = null;
    renderChats();
  });
  renaming = input;
  replace(item, input);
  input.select();
}

/** A field with the chat's title: Enter or leaving it keeps the new one, Esc the old. */
export function titleInput(chat, done) {
  let over = false;
  const finish = (keep) => {
    if (over) return;
    over = true;
    const title = input.value.trim();
    done();
    if (keep && title !== "" && title !== chat.title) change(chat, { title });
  };
  const input = h("input", {
    class: "title-input", type: "text", value: chat.title, maxlength: MAX_TITLE_CHARS, "aria-label": "Title of this chat",
    onblur: () => finish(true),
    onkeydown: (event) => {
      if (event.key === "Enter" && !event.isComposing) finish(true);
      if (event.key === "Escape") {
        event.stopPropagation();
        finish(false);
      }
    },
  });
  return input;
}
