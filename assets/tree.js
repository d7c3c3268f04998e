// A chat is a tree of messages: editing and regenerating make siblings. These functions find one's way in it.
// `messages` is a Map from id to message in the order of storing.

/** The messages from the oldest loaded ancestor down to `leaf`. */
export function pathTo(messages, leaf) {
  const path = [];
  const seen = new Set();
  for (let message = messages.get(leaf); message && !seen.has(message.id); message = messages.get(message.parent_id)) {
    seen.add(message.id); // an imported file could hold a ring
    path.push(message);
  }
  return path.reverse();
}

/** Finds siblings quickly: `of(message)` gives the ids of a message and its siblings, oldest first. */
export function siblingIndex(messages) {
  const byPlace = new Map();
  const place = (message) => `${message.is_user} ${message.parent_id ?? ""}`;
  for (const message of messages.values()) {
    const ids = byPlace.get(place(message));
    if (ids) ids.push(message.id);
    else byPlace.set(place(message), [message.id]);
  }
  return { of: (message) => byPlace.get(place(message)) ?? [message.id] };
}

/** The newest end of the branch that starts at `id`. */
export function newestLeaf(messages, id) {
  const newestChild = new Map();
  for (const message of messages.values()) {
    if (message.parent_id) newestChild.set(message.parent_id, message.id);
  }
  const seen = new Set();
  let leaf = id;
  while (newestChild.has(leaf) && !seen.has(leaf)) {
    seen.add(leaf);
    leaf = newestChild.get(leaf);
  }
  return leaf;
}

/** The id of the message stored last, or null. */
export function lastId(messages) {
  return [...messages.keys()].at(-1) ?? null;
}
