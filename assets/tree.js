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

/** The ids of a message and its siblings, oldest first. */
export function siblings(messages, id) {
  const message = messages.get(id);
  if (!message) return [];
  return [...messages.values()]
    .filter((other) => (other.parent_id ?? null) === (message.parent_id ?? null) && other.is_user === message.is_user)
    .map((other) => other.id);
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
