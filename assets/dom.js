// Building elements. Text always goes in as text nodes; nothing here, or anywhere in the page, parses HTML.

import { ICONS } from "./icons.js";

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/**
 * An element. `props`: `class`, `text`, `on…` functions become listeners, `true`/`false`/`null` set or leave out an
 * attribute, `value`, `checked` and `disabled` are set as properties, the rest become attributes.
 * Children: nodes, strings, or nested lists of them; `null` and `false` are skipped.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A line icon that screen readers skip. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  for (const d of ICONS[name]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

/** A button that shows only an icon; `label` is what screen readers and the tooltip say. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", "aria-label": label, title: label, ...props, class: `icon-button ${props.class ?? ""}`.trim(), onclick }, icon(name));
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

/** A labelled form field; `hint` stands below and is read with it. */
export function field(label, input, hint) {
  input.id ||= `f-${(field.n = (field.n ?? 0) + 1)}`;
  const below = hint && h("p", { class: "hint", id: `${input.id}-hint`, text: hint });
  if (below) input.setAttribute("aria-describedby", below.id);
  return h("div", { class: "field" }, h("label", { for: input.id, text: label }), input, below);
}

const COLOR = /^color:(#[0-9a-f]{6})$/i;
const PICTURE = /^data:image\/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+$/;
const AVATAR_COLORS = ["#b4492d", "#8a5a2b", "#5f7a3a", "#2f7a6b", "#3b6a94", "#7a5aa0", "#a8486f"];

/** The person's picture, or their initial on their colour. */
export function avatar(user, size = "small") {
  const url = user.avatar_url ?? "";
  if (PICTURE.test(url)) return h("img", { class: `avatar ${size}`, src: url, alt: "" });
  const name = user.full_name || user.email || "?";
  const chosen = COLOR.exec(url)?.[1];
  const sum = [...(user.email ?? name)].reduce((n, c) => n + c.codePointAt(0), 0);
  const element = h("span", { class: `avatar ${size}`, "aria-hidden": "true", text: [...name.trim()][0]?.toUpperCase() ?? "?" });
  element.style.backgroundColor = chosen ?? AVATAR_COLORS[sum % AVATAR_COLORS.length];
  return element;
}
export { AVATAR_COLORS };

/** Copies text; `navigator.clipboard` is missing on plain http in the home network, hence the second way. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "sr-only", value: text, "aria-hidden": "true" });
    const home = document.querySelector("dialog[open]") ?? document.body;
    const before = document.activeElement;
    home.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    before?.focus();
    return copied;
  }
}

/** A button that copies `text()` and says so for a moment. */
export function copyButton(label, text, props = {}) {
  const button = iconButton("copy", label, async () => {
    const copied = await copyText(text());
    replace(button, icon(copied ? "check" : "copy"), props.caption && (copied ? "Copied" : "Could not copy"));
    button.setAttribute("aria-label", copied ? "Copied" : "Could not copy");
    setTimeout(() => {
      replace(button, icon("copy"), props.caption);
      button.setAttribute("aria-label", label);
    }, 1600);
  }, { class: props.class });
  if (props.caption) button.append(props.caption);
  return button;
}

const DAY_MS = 86_400_000;

/** A time as people say it: "14:05" today, "Tue 14:05" this week, else a date. */
export function shortTime(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return "";
  const clock = time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const age = Date.now() - time.getTime();
  if (time.toDateString() === new Date().toDateString()) return clock;
  if (age < 6 * DAY_MS) return `${time.toLocaleDateString([], { weekday: "short" })} ${clock}`;
  return time.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
}

/** Which part of the chat list a chat belongs to. */
export function dayGroup(iso) {
  const today = new Date();
  today.setHours(0, 0, 0, 0);
  const time = new Date(iso).getTime();
  if (time >= today.getTime()) return "Today";
  if (time >= today.getTime() - DAY_MS) return "Yesterday";
  if (time >= today.getTime() - 7 * DAY_MS) return "This week";
  if (time >= today.getTime() - 30 * DAY_MS) return "This month";
  return "Earlier";
}
