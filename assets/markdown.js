// A small markdown that builds elements. There is no HTML in it: every piece of text becomes a text node, and an
// address becomes a link only when it is http, https or mailto. Pictures are shown as links and never loaded.

import { copyButton, h, replace } from "./dom.js";
import { inline } from "./markdown_inline.js";

/** Past this, text is shown as it is: nobody reads it, and it must not make the page slow. */
const MAX_MARKDOWN_CHARS = 200_000;
/** Lists and quotes inside each other beyond this are shown as plain paragraphs. */
const MAX_DEPTH = 6;

const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?: +|$)/;
const RULE = /^ {0,3}(?:-(?: *-){2,}|\*(?: *\*){2,}|_(?: *_){2,}) *$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,8})([-*+]|\d{1,9}[.)])(?: {1,4}|$)/;
const MAX_TABLE_RULE_CHARS = 1000; // its pattern can backtrack
const TABLE_RULE = /^ *\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;

/**
 * Shows `text` in `container`. Called again with more text, it keeps the blocks that did not change, so that a
 * streaming answer neither flickers nor loses what the reader has selected.
 */
export function showMarkdown(container, text) {
  if (text.length > MAX_MARKDOWN_CHARS) {
    replace(container, h("p", { class: "plain", text }));
    container.shownBlocks = [];
    return;
  }
  const before = container.shownBlocks ?? [];
  const now = splitBlocks(text.replaceAll("\r\n", "\n").split("\n"), 0);
  let same = 0;
  while (same < before.length && same < now.length && before[same].source === now[same].source) {
    now[same].element = before[same].element;
    same += 1;
  }
  for (const old of before.slice(same)) old.element.remove();
  for (const block of now.slice(same)) {
    block.element = block.build();
    container.append(block.element);
  }
  container.shownBlocks = now;
}

/** Cuts lines into blocks `{source, build}`. */
function splitBlocks(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at += 1;
      continue;
    }
    const read = READERS.find((reader) => reader.starts(lines, at, depth)) ?? PARAGRAPH;
    const end = Math.max(read.end(lines, at, depth), at + 1);
    const part = lines.slice(at, end);
    blocks.push({ source: `${read.name}:${part.join("\n")}`, build: () => read.build(part, depth) });
    at = end;
  }
  return blocks;
}

const buildAll = (lines, depth) => splitBlocks(lines, depth).map((block) => block.build());

const CODE = {
  name: "code",
  starts: (lines, at) => FENCE.test(lines[at]) && !(lines[at].trimStart().startsWith("`") && FENCE.exec(lines[at])[2].includes("`")),
  end(lines, at) {
    const fence = FENCE.exec(lines[at])[1];
    for (let i = at + 1; i < lines.length; i += 1) {
      const close = FENCE.exec(lines[i]);
      if (close && close[1].startsWith(fence) && close[2].trim() === "") return i + 1;
    }
    return lines.length; // still streaming, or never closed
  },
  build(lines) {
    const [, fence, info] = FENCE.exec(lines[0]);
    const close = lines.length > 1 && FENCE.exec(lines.at(-1));
    const closed = close && close[1].startsWith(fence) && close[2].trim() === "";
    const text = lines.slice(1, closed ? -1 : undefined).join("\n");
    const language = info.trim().split(/\s/)[0].slice(0, 30);
    return h("div", { class: "code" },
      h("div", { class: "code-head" }, h("span", { text: language || "text" }), copyButton("Copy the code", () => text, { caption: "Copy", class: "captioned" })),
      h("pre", { tabindex: "0" }, h("code", { text })));
  },
};

const TITLE = {
  name: "heading",
  starts: (lines, at) => HEADING.test(lines[at]),
  end: (lines, at) => at + 1,
  build(lines) {
    const marks = HEADING.exec(lines[0])[1].length;
    const text = lines[0].trim().slice(marks).trim();
    let end = text.length;
    while (text[end - 1] === "#") end -= 1;
    const closed = end === 0 || text[end - 1] === " ";
    // The page has its own h1, and an answer must not break the outline.
    return h(`h${Math.min(marks + 2, 6)}`, {}, inline(closed ? text.slice(0, end).trim() : text));
  },
};

const LINE = {
  name: "rule",
  starts: (lines, at) => RULE.test(lines[at]),
  end: (lines, at) => at + 1,
  build: () => h("hr"),
};

const QUOTED = {
  name: "quote",
  starts: (lines, at, depth) => depth < MAX_DEPTH && QUOTE.test(lines[at]),
  end(lines, at) {
    let i = at;
    while (i < lines.length && QUOTE.test(lines[i])) i += 1;
    return i;
  },
  build: (lines, depth) => h("blockquote", {}, buildAll(lines.map((line) => line.replace(QUOTE, "")), depth + 1)),
};

const LIST = {
  name: "list",
  starts: (lines, at, depth) => depth < MAX_DEPTH && ITEM.test(lines[at]),
  end(lines, at) {
    const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
    let i = at + 1;
    while (i < lines.length) {
      const item = ITEM.exec(lines[i]);
      const belongs = /^ {2,}\S/.test(lines[i]) || (item && /\d/.test(item[2]) === ordered && !RULE.test(lines[i]));
      if (lines[i].trim() === "") {
        const next = lines[i + 1];
        const nextItem = next !== undefined && ITEM.exec(next);
        if (next === undefined || next.trim() === "" || !(/^ {2,}\S/.test(next) || (nextItem && /\d/.test(nextItem[2]) === ordered))) return i;
      } else if (!belongs && (lines[i - 1].trim() === "" || READERS.some((reader) => reader.starts(lines, i, 0)))) {
        return i;
      }
      i += 1;
    }
    return i;
  },
  build(lines, depth) {
    const first = ITEM.exec(lines[0]);
    const ordered = /\d/.test(first[2]);
    const margin = first[1].length;
    const items = [];
    for (const line of lines) {
      const item = ITEM.exec(line);
      if (item && item[1].length <= margin + 1) items.push({ indent: item[0].length, lines: [line.slice(item[0].length)] });
      else items.at(-1).lines.push(unindent(line, items.at(-1).indent));
    }
    const start = ordered ? Number.parseInt(first[2], 10) : 1;
    return h(ordered ? "ol" : "ul", { start: ordered && start !== 1 ? start : null },
      items.map((item) => h("li", {}, tight(buildAll(item.lines, depth + 1)))));
  },
};

/** Takes away up to `n` leading blanks. */
function unindent(line, n) {
  let i = 0;
  while (i < n && line[i] === " ") i += 1;
  return line.slice(i);
}

/** An item that is one paragraph, perhaps with a list below, stands without the paragraph's margins. */
function tight(children) {
  const [first, ...rest] = children;
  if (first?.tagName !== "P" || rest.some((child) => child.tagName === "P")) return children;
  return [...first.childNodes, ...rest];
}

const TABLE = {
  name: "table",
  starts: (lines, at) => lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-")
    && lines[at + 1].length < MAX_TABLE_RULE_CHARS && TABLE_RULE.test(lines[at + 1])
    && cells(lines[at]).length === cells(lines[at + 1]).length,
  end(lines, at) {
    let i = at + 2;
    while (i < lines.length && lines[i].includes("|")) i += 1;
    return i;
  },
  build(lines) {
    const head = cells(lines[0]);
    const row = (line) => {
      const found = cells(line);
      return h("tr", {}, head.map((_, i) => h("td", {}, inline(found[i] ?? ""))));
    };
    return h("div", { class: "table-wrap", tabindex: "0" },
      h("table", {}, h("thead", {}, h("tr", {}, head.map((text) => h("th", {}, inline(text))))), h("tbody", {}, lines.slice(2).map(row))));
  },
};

function cells(line) {
  const found = line.trim().replaceAll("\\|", "\u0000").split("|").map((cell) => cell.trim().replaceAll("\u0000", "|"));
  if (found[0] === "") found.shift();
  if (found.at(-1) === "") found.pop();
  return found;
}

const PARAGRAPH = {
  name: "paragraph",
  end(lines, at, depth) {
    let i = at + 1;
    while (i < lines.length && lines[i].trim() !== "" && !READERS.some((reader) => reader.starts(lines, i, depth))) i += 1;
    return i;
  },
  build: (lines) => h("p", {}, inline(lines.map((line) => line.trim()).join("\n"))),
};

const READERS = [CODE, TITLE, LINE, QUOTED, LIST, TABLE];

/** What a screen reader should say for a piece of markdown: the words without the marks. */
export function spoken(text) {
  return text.replace(/[*_`#>~|]+/g, " ").replace(/\s+/g, " ").trim();
}
