// Says an answer to screen readers sentence by sentence: a live region that changed with every token would stutter.

import { $, h } from "./dom.js";
import { spoken } from "./markdown.js";

const SENTENCE = /[.!?…。！？]["'”’)]*\s+|\n+/g;
/** Old sentences leave the region; a reader that is slower than this many has them in the conversation. */
const MAX_KEPT = 12;

let current = null;
let saidChars = 0;

/** Says plain words now. */
export function announce(text) {
  if (text === "") return;
  const region = $("announcer");
  region.append(h("p", { text }));
  while (region.children.length > MAX_KEPT) region.firstChild.remove();
}

/** Takes the text of the answer `id` so far; `ended` says the rest, too. */
export function announceAnswer(id, text, ended) {
  if (current !== id) {
    if (ended) return; // an old answer that was only loaded
    current = id;
    saidChars = 0;
  }
  let end = saidChars;
  for (const match of text.slice(saidChars).matchAll(SENTENCE)) end = saidChars + match.index + match[0].length;
  if (ended) end = text.length;
  if (end > saidChars) announce(spoken(text.slice(saidChars, end)));
  saidChars = Math.max(saidChars, end);
  if (ended) current = null;
}
