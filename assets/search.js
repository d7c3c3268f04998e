// Finding a chat by its title or by what was said in it. The server looks; nothing is indexed here.

import { api } from "./api.js";
import { h, replace, shortTime } from "./dom.js";
import { openDialog } from "./overlays.js";
import { chatsNewestFirst } from "./state.js";

const TYPING_PAUSE_MS = 180;
let open = null;

export function openSearch() {
  if (open) return open.input.focus();
  const input = h("input", { type: "text", role: "searchbox", enterkeyhint: "search", class: "search-input", placeholder: "Search your chats", "aria-label": "Search your chats", "aria-controls": "search-hits", autocomplete: "off", spellcheck: "false" });
  const hits = h("ul", { class: "search-hits", id: "search-hits" });
  const status = h("p", { class: "hint", role: "status" });
  const { dialog, close } = openDialog("Search", [input, status, hits], { className: "search-dialog", onclose: () => (open = null) });
  open = { input, close };
  let timer = null;
  let asking = null;
  const go = (hit) => {
    close();
    location.hash = hit.message_id ? `#/c/${hit.chat_id}/${hit.message_id}` : `#/c/${hit.chat_id}`;
  };
  const show = (found, q) => {
    replace(hits, found.map((hit) => h("li", {}, h("button", { type: "button", class: "hit", onclick: () => go(hit) },
      h("span", { class: "hit-title" }, marked(hit.title, q)),
      hit.snippet && h("span", { class: "hit-snippet" }, marked(hit.snippet, q)),
      h("span", { class: "hit-time", text: shortTime(hit.created_at) })))));
  };
  const recent = () => {
    status.textContent = "";
    show(chatsNewestFirst().slice(0, 8).map((chat) => ({ chat_id: chat.id, title: chat.title, created_at: chat.updated_at })), "");
  };
  const ask = async () => {
    asking?.abort();
    const q = input.value.trim();
    if (q === "") return recent();
    asking = new AbortController();
    try {
      const { hits: found } = await api.search(q, asking.signal);
      const titles = chatsNewestFirst()
        .filter((chat) => chat.title.toLowerCase().includes(q.toLowerCase()) && !found.some((hit) => hit.chat_id === chat.id))
        .slice(0, 5).map((chat) => ({ chat_id: chat.id, title: chat.title, created_at: chat.updated_at }));
      const all = [...titles, ...found];
      status.textContent = all.length === 0 ? "Nothing found." : all.length === 1 ? "1 found" : `${all.length} found`;
      show(all, q);
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = error.message;
    }
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, TYPING_PAUSE_MS);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    event.preventDefault();
    const stops = [input, ...hits.querySelectorAll("button")];
    const at = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    stops[Math.max(0, Math.min(stops.length - 1, at))].focus();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) hits.querySelector("button")?.click();
  });
  recent();
  input.focus();
}

/** The text with every occurrence of `q` marked. */
function marked(text, q) {
  if (q === "") return [text];
  const nodes = [];
  const low = text.toLowerCase();
  const wanted = q.toLowerCase();
  // Lower case can be longer than the text was ("İ"); then positions do not match, and nothing is marked.
  if (low.length !== text.length) return [text];
  let from = 0;
  for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
    nodes.push(text.slice(from, at), h("mark", { text: text.slice(at, at + wanted.length) }));
    from = at + wanted.length;
  }
  return [...nodes, text.slice(from)];
}
