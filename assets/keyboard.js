// Shortcuts. The same table drives the keys and the list in the settings.

const MAC = /Mac|iPhone|iPad/.test(navigator.platform);

export const KEYS = [
  { keys: "Mod+K", does: "Search" },
  { keys: "Shift+Mod+O", does: "New chat" },
  { keys: "Mod+B", does: "Show or hide the chat list" },
  { keys: "Shift+Mod+E", does: "Edit your last message" },
  { keys: "Shift+Mod+D", does: "Delete this chat" },
  { keys: "Enter", does: "Send" },
  { keys: "Shift+Enter", does: "New line" },
  { keys: "Escape", does: "Stop the answer" },
];

export function keyNames(keys) {
  const names = { Mod: MAC ? "⌘" : "Ctrl", Shift: MAC ? "⇧" : "Shift", Escape: "Esc" };
  return keys.split("+").map((key) => names[key] ?? key);
}

/** `actions`: from the words of KEYS to functions; an action that returns false leaves the key to the browser. */
export function setUpKeyboard(actions) {
  for (const element of document.querySelectorAll("kbd[data-keys]")) element.textContent = keyNames(element.dataset.keys).join(MAC ? "" : "+");
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey) return;
    const mod = MAC ? event.metaKey : event.ctrlKey;
    const pressed = [event.shiftKey && "Shift", mod && "Mod", event.key.length === 1 ? event.key.toUpperCase() : event.key].filter(Boolean).join("+");
    const action = actions[pressed];
    // A dialog keeps the keyboard to itself.
    if (!action || document.querySelector("dialog[open]")) return;
    if (action() !== false) event.preventDefault();
  });
}
