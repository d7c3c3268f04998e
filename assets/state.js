// What the page knows while somebody is signed in, and who wants to hear of changes. Nothing of it is stored.

export const state = {
  /** The person, as GET /api/me gives them. */
  me: null,
  /** Chats by id, without messages. */
  chats: new Map(),
  /** Where the next page of the chat list begins; null at its end. */
  chatCursor: null,
  /** Conversations opened since the page was loaded, by chat id. */
  conversations: new Map(),
  /** The conversation on the screen, or null on the welcome page. */
  current: null,
  /** Chats whose deletion can still be taken back. */
  leaving: new Set(),
};

const listeners = new Map();

/** Calls `callback` on each `tell(name, …)`. */
export function hear(name, callback) {
  if (!listeners.has(name)) listeners.set(name, []);
  listeners.get(name).push(callback);
}

export function tell(name, ...data) {
  for (const callback of listeners.get(name) ?? []) callback(...data);
}

/** Forgets everything of this person. */
export function forget() {
  state.me = null;
  state.chats.clear();
  state.chatCursor = null;
  for (const conversation of state.conversations.values()) conversation.run?.controller.abort();
  state.conversations.clear();
  state.current = null;
  state.leaving.clear();
}

/** What the person calls the one who answers. */
export function parentName() {
  return { mom: "Mom", dad: "Dad", parent: "Your parent" }[state.me?.persona] ?? "Mom";
}

/** Chats in the order of the list: newest change first. */
export function chatsNewestFirst() {
  return [...state.chats.values()]
    .filter((chat) => !state.leaving.has(chat.id))
    .sort((a, b) => (a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : 0));
}
