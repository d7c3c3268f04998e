// Marks inside a line: emphasis, code, links. One pass from left to right; a mark that finds no partner is text,
// and that it found none is remembered, so that a page of asterisks costs no more than a page of words.

import { h } from "./dom.js";

const MAX_DEPTH = 5;
const MAX_URL_CHARS = 2048;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const BARE_URL = /(?:https?:\/\/|mailto:)[^\s<>"'`\\^{}|]+/iy;

/** Nodes for a piece of text. */
export function inline(text) {
  return scan(text, 0, false);
}

/**
 * The address if a link may go there, else null. The browser's own parser decides what it is, after everything that
 * parser would skip over (blanks and control characters) has been refused.
 */
export function safeUrl(raw) {
  if (raw.length > MAX_URL_CHARS || /[\u0000-\u0020\u007f-\u00a0\u2028\u2029]/.test(raw)) return null;
  if (!/^(?:https?:\/\/|mailto:)/i.test(raw)) return null;
  try {
    const url = new URL(raw);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** A link that shows where it goes: the full address stands behind words that hide it. */
function link(url, children, shownText) {
  const anchor = h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, h("bdi", {}, children));
  const plain = shownText.trim();
  if (plain === url || `${plain}/` === url || `mailto:${plain}` === url) return [anchor];
  return [anchor, h("span", { class: "url" }, " (", h("bdi", { text: url }), ")")];
}

function scan(text, depth, inLink) {
  const nodes = [];
  const hopeless = new Set();
  let plain = "";
  const flush = () => {
    if (plain !== "") nodes.push(document.createTextNode(plain));
    plain = "";
  };
  let at = 0;
  while (at < text.length) {
    const c = text[at];
    let found = null;
    if (c === "\n") found = { nodes: [h("br")], end: at + 1 };
    else if (c === "\\" && at + 1 < text.length && PUNCTUATION.test(text[at + 1])) {
      plain += text[at + 1];
      at += 2;
      continue;
    } else if (c === "`") found = code(text, at, hopeless);
    else if (c === "!" && text[at + 1] === "[" && !inLink) found = bracket(text, at + 1, depth, true);
    else if (c === "[" && !inLink) found = bracket(text, at, depth, false);
    else if (c === "<" && !inLink) found = angle(text, at);
    else if ((c === "*" || c === "_" || c === "~") && depth < MAX_DEPTH) found = emphasis(text, at, depth, inLink, hopeless);
    else if ((c === "h" || c === "H" || c === "m" || c === "M") && !inLink && (at === 0 || !WORD.test(text[at - 1]))) found = bareUrl(text, at);
    if (found) {
      flush();
      nodes.push(...found.nodes);
      at = found.end;
    } else {
      const run = c === "*" || c === "_" || c === "`" || c === "~" ? runLength(text, at) : 1;
      plain += text.slice(at, at + run);
      at += run;
    }
  }
  flush();
  return nodes;
}

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function code(text, at, hopeless) {
  const n = runLength(text, at);
  if (hopeless.has(`\`${n}`)) return null;
  for (let i = text.indexOf("`", at + n); i >= 0; i = text.indexOf("`", i)) {
    const run = runLength(text, i);
    if (run === n) {
      const inner = text.slice(at + n, i).replaceAll("\n", " ");
      const strip = inner.startsWith(" ") && inner.endsWith(" ") && inner.trim() !== "";
      return { nodes: [h("code", { text: strip ? inner.slice(1, -1) : inner })], end: i + n };
    }
    i += run;
  }
  hopeless.add(`\`${n}`);
  return null;
}

const EMPHASIS = { "*": ["em", "strong"], _: ["em", "strong"], "~": [null, "del"] };

function emphasis(text, at, depth, inLink, hopeless) {
  const mark = text[at];
  const n = runLength(text, at);
  const before = text[at - 1] ?? " ";
  const after = text[at + n] ?? " ";
  if (n > 3 || /\s/.test(after) || (mark === "_" && WORD.test(before)) || (mark === "~" && n !== 2)) return null;
  const key = mark.repeat(n);
  if (hopeless.has(key)) return null;
  for (let i = text.indexOf(key, at + n); i >= 0; i = text.indexOf(key, i)) {
    const run = runLength(text, i);
    const closes = run === n && !/\s/.test(text[i - 1]) && !(mark === "_" && WORD.test(text[i + n] ?? " "));
    if (closes) {
      const inner = scan(text.slice(at + n, i), depth + 1, inLink);
      const names = n === 3 ? EMPHASIS[mark] : [EMPHASIS[mark][n - 1]];
      return { nodes: [names.reduce((children, name) => [h(name, {}, children)], inner)[0]], end: i + n };
    }
    i += run;
  }
  hopeless.add(key);
  return null;
}

/** `[words](address)`, `![words](address)`; words hold no bracket of their own, which keeps this linear. */
function bracket(text, at, depth, picture) {
  let close = at + 1;
  while (close < text.length && text[close] !== "]" && text[close] !== "[") close += text[close] === "\\" ? 2 : 1;
  if (text[close] !== "]" || text[close + 1] !== "(") return null;
  const target = address(text, close + 2);
  const url = target && safeUrl(target.url);
  if (!url) return null;
  const words = text.slice(at + 1, close);
  const children = scan(words, depth + 1, true);
  const label = picture ? ["Picture: ", ...(words === "" ? ["(no words)"] : children)] : words === "" ? [url] : children;
  return { nodes: link(url, label, picture ? "" : words || url), end: target.end };
}

/** The address of a link from behind its "(" up to its ")", with a title that is not shown. */
function address(text, from) {
  let depth = 0;
  const limit = Math.min(text.length, from + MAX_URL_CHARS);
  const start = text[from] === "<" ? from + 1 : from;
  for (let i = start; i < limit; i += 1) {
    const c = text[i];
    if (start > from && c === ">") return text[i + 1] === ")" ? { url: text.slice(start, i), end: i + 2 } : null;
    if (c === "\n") return null;
    if (c === " ") {
      const title = /^ +(?:"[^"\n]{0,200}"|'[^'\n]{0,200}') *\)/.exec(text.slice(i, i + 220));
      return title && start === from ? { url: text.slice(start, i), end: i + title[0].length } : null;
    }
    if (c === "(") depth += 1;
    if (c === ")" && start === from) {
      if (depth === 0) return { url: text.slice(start, i), end: i + 1 };
      depth -= 1;
    }
  }
  return null;
}

/** `<https://…>` */
function angle(text, at) {
  const end = text.slice(at, at + MAX_URL_CHARS).indexOf(">");
  const raw = end > 0 ? text.slice(at + 1, at + end) : "";
  const url = safeUrl(raw);
  return url && { nodes: link(url, [raw], raw), end: at + end + 1 };
}

function bareUrl(text, at) {
  BARE_URL.lastIndex = at;
  let raw = BARE_URL.exec(text)?.[0] ?? "";
  if (raw.length > MAX_URL_CHARS) return { nodes: [document.createTextNode(raw)], end: at + raw.length };
  while (/[.,;:!?*_~\])]$/.test(raw)) {
    if (raw.endsWith(")") && raw.split("(").length >= raw.split(")").length) break;
    raw = raw.slice(0, -1);
  }
  const url = raw.length > "mailto:".length && safeUrl(raw);
  return url ? { nodes: link(url, [raw], raw), end: at + raw.length } : null;
}
