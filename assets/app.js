// The page's beginning: who is here, which chat is open, and what belongs to the frame around it.

import { ApiError, api, onSignedOut, uuid } from "./api.js";
import { showAuth } from "./auth.js";
import { deleteChat, loadChats, openChatMenu, putChat, setUpChats, titleInput } from "./chats.js";
import { focusComposer, forgetDrafts, setUpComposer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { $, avatar, h, icon, replace } from "./dom.js";
import { setUpKeyboard } from "./keyboard.js";
import { startLive, stopLive } from "./live.js";
import { setUpLook } from "./look.js";
import { setUpMemories } from "./memories.js";
import { editLast, followAnswer, setUpMessages, showMessage } from "./messages.js";
import { toast, toastError } from "./overlays.js";
import { openSearch } from "./search.js";
import { openSettings } from "./settings.js";
import { forget, hear, state, tell } from "./state.js";
import { setUpWelcome } from "./welcome.js";

const MAX_TITLE_CHARS = 100;
const PHONE = matchMedia("(max-width: 760px)");
const SIDEBAR = "mommygpt.sidebar";
const RETRY_MS = 2000;

/** The chat in the address, and the message to show in it. */
function addressed() {
  const [, id = null, message = null] = /^#\/c\/([0-9a-f-]{36})(?:\/([0-9a-f-]{36}))?$/.exec(location.hash) ?? [];
  return { id, message };
}

function makeConversation(id, isNew) {
  const conversation = new Conversation(id, isNew, (changed, what) => {
    tell(what, changed);
    if (what === "done") api.chat(changed.id).then(putChat).catch(() => {});
  });
  state.conversations.set(id, conversation);
  return conversation;
}

async function route() {
  if (!state.me) return;
  const { id, message } = addressed();
  if (id === null || state.leaving.has(id)) {
    state.current = null;
    tell("current");
    showFrame();
    focusComposer();
    return;
  }
  const known = state.conversations.get(id);
  const conversation = known ?? makeConversation(id, false);
  const changed = state.current !== conversation;
  state.current = conversation;
  if (changed) tell("current");
  showFrame();
  closeDrawer();
  if (changed) focusComposer();
  try {
    if (!state.chats.has(id)) putChat(await api.chat(id));
    await conversation.load();
    if (message && state.current === conversation) await showMessage(conversation, message);
  } catch (error) {
    if (state.current !== conversation || error.status === 401) return;
    if (error.status === 404) {
      state.conversations.delete(id);
      location.replace("#/");
      toast("This chat is not here any more.");
    } else {
      toastError(error);
    }
  }
}

function send(text) {
  let conversation = state.current;
  if (!conversation) {
    conversation = makeConversation(uuid(), true);
    const now = new Date().toISOString();
    state.chats.set(conversation.id, { id: conversation.id, title: [...text.trim().replace(/\s+/g, " ")].slice(0, MAX_TITLE_CHARS).join(""), created_at: now, updated_at: now, pinned: false, archived: false, unsaved: true });
    state.current = conversation;
    history.pushState(null, "", `#/c/${conversation.id}`);
    tell("chats");
    tell("current");
    showFrame();
  }
  followAnswer();
  conversation.send(text).catch(toastError);
}

function newChat() {
  closeDrawer();
  if (location.hash === "" || location.hash === "#/") {
    focusComposer();
    return;
  }
  location.hash = "#/";
}

function openChat() {
  return state.current && state.chats.get(state.current.id);
}

function showFrame() {
  const chat = openChat();
  const title = $("chat-title");
  if (!title.querySelector("input")) replace(title, chat ? h("button", { type: "button", class: "title-button", title: "Rename", text: chat.title, onclick: renameOpen, disabled: Boolean(chat.unsaved) }) : h("span", { class: "sr-only", text: "New chat" }));
  $("chat-menu").hidden = !chat || Boolean(chat.unsaved);
  document.title = chat ? `${chat.title} · MommyGPT` : "MommyGPT";
}

function renameOpen() {
  const chat = openChat();
  if (!chat) return;
  const input = titleInput(chat, () => {
    input.remove();
    showFrame();
  });
  replace($("chat-title"), input);
  input.select();
}

function closeDrawer() {
  document.body.classList.remove("drawer-open");
  $("backdrop").hidden = true;
  $("main").inert = false;
  if (PHONE.matches) $("sidebar").inert = true;
}

function toggleSidebar() {
  if (PHONE.matches) {
    if (document.body.classList.contains("drawer-open")) {
      closeDrawer();
      $("show-sidebar").focus();
      return;
    }
    document.body.classList.add("drawer-open");
    $("backdrop").hidden = false;
    $("sidebar").inert = false;
    $("main").inert = true;
    $("hide-sidebar").focus();
    return;
  }
  const hidden = document.body.classList.toggle("sidebar-hidden");
  localStorage.setItem(SIDEBAR, hidden ? "hidden" : "shown");
  $("sidebar").inert = hidden;
  $(hidden ? "show-sidebar" : "hide-sidebar").focus();
}

function layOut() {
  const hidden = !PHONE.matches && localStorage.getItem(SIDEBAR) === "hidden";
  document.body.classList.toggle("sidebar-hidden", hidden);
  closeDrawer();
  $("sidebar").inert = PHONE.matches || hidden;
}

function escape() {
  if (document.body.classList.contains("drawer-open")) return toggleSidebar();
  if (!state.current?.run) return false;
  state.current.stop();
  return true;
}

function setUpFrame() {
  for (const [id, name] of [["hide-sidebar", "sidebar"], ["show-sidebar", "sidebar"], ["chat-menu", "more"], ["new-chat-top", "plus"]]) replace($(id), icon(name));
  replace(document.querySelector("#new-chat .row-icon"), icon("plus"));
  replace(document.querySelector("#open-search .row-icon"), icon("search"));
  $("new-chat").addEventListener("click", newChat);
  $("new-chat-top").addEventListener("click", newChat);
  $("open-search").addEventListener("click", openSearch);
  $("hide-sidebar").addEventListener("click", toggleSidebar);
  $("show-sidebar").addEventListener("click", toggleSidebar);
  $("backdrop").addEventListener("click", toggleSidebar);
  $("brand").addEventListener("click", closeDrawer);
  $("chat-list").addEventListener("click", (event) => event.target.closest("a") && closeDrawer());
  $("open-settings").addEventListener("click", () => openSettings());
  $("chat-menu").addEventListener("click", () => openChat() && openChatMenu($("chat-menu"), openChat(), renameOpen));
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("composer-input").focus();
  });
  hear("chats", showFrame);
  hear("me", showMe);
  hear("sign-out", signOut);
  PHONE.addEventListener("change", layOut);
  setUpKeyboard({
    "Mod+K": openSearch,
    "Shift+Mod+O": newChat,
    "Mod+B": toggleSidebar,
    "Shift+Mod+E": editLast,
    "Shift+Mod+D": () => openChat() && !openChat().unsaved && deleteChat(openChat()),
    Escape: escape,
  });
  layOut();
}

function showMe() {
  if (!state.me) return;
  const name = state.me.full_name || state.me.email;
  replace($("open-settings"), avatar(state.me), h("span", { class: "me-name", text: name }));
  $("open-settings").setAttribute("aria-label", `Settings of ${name}`);
}

async function enter(user) {
  state.me = user;
  $("auth").hidden = true;
  $("auth").replaceChildren();
  $("booting").hidden = true;
  $("app").hidden = false;
  tell("me");
  startLive();
  const chats = loadChats().catch(toastError);
  await route();
  await chats;
}

/** Takes everything private off the screen and out of memory. */
function clearScreen() {
  stopLive();
  forget();
  forgetDrafts();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  for (const id of ["toasts", "announcer", "log", "chat-list"]) $(id).replaceChildren();
  tell("current");
  tell("chats");
  $("app").hidden = true;
}

async function signOut() {
  try {
    await api.signOut();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) return toastError(error);
  }
  clearScreen();
  // A new document: neither this one's memory nor its address is left behind for whoever presses Back.
  location.replace("/");
}

function sendAway() {
  if (!state.me) return;
  clearScreen();
  history.replaceState(null, "", location.pathname);
  showAuth(enter, "You were signed out. Please sign in again.");
}

async function boot() {
  let me;
  try {
    me = await api.me({ quiet401: true });
  } catch (error) {
    if (error.status !== 401) {
      replace($("booting"), h("div", { class: "boot-trouble" }, h("p", { text: error.message }), h("p", { class: "hint", text: "Trying again…" })));
      setTimeout(boot, RETRY_MS);
      return;
    }
    $("booting").hidden = true;
    showAuth(enter);
    return;
  }
  await enter(me);
}

// A page that the browser kept whole must ask again who is here.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
addEventListener("hashchange", route);
onSignedOut(sendAway);
setUpFrame();
setUpLook();
setUpChats();
setUpMessages();
setUpMemories();
setUpComposer({ send, stop: () => state.current?.stop() });
setUpWelcome(send);
boot();
