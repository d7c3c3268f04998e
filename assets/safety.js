// The card beside a message that sounds like danger. Its words come from the server's reviewed file, never from the
// model; what stands here is for the moment when the server cannot be asked.

import { api } from "./api.js";
import { h, icon } from "./dom.js";
import { safeUrl } from "./markdown_inline.js";

const BUILT_IN = {
  title: "Please let a person help you with this",
  text: "I'm a program, and this sounds like something for people who can come close. If anyone is in danger right now, call the emergency number. If not, one of these will listen, and you do not need the right words.",
  lines: [
    { name: "Emergency services", contact: "112 (Europe), 999 (UK), 911 (US, Canada), 000 (Australia), 111 (New Zealand)", note: "free, day and night" },
    { name: "Find a helpline", contact: "findahelpline.com", note: "most countries" },
  ],
};

const cards = new Map();

/** The card for a kind of danger. It is there at once; the server's words replace the built-in ones when they come. */
export function safetyCard(kind) {
  const element = h("aside", { class: "safety-card", "aria-label": "Help from people" });
  fill(element, BUILT_IN);
  if (!cards.has(kind)) cards.set(kind, api.safetyCard(kind).catch(() => null));
  cards.get(kind).then((card) => {
    if (card?.title && Array.isArray(card.lines)) fill(element, card);
    else cards.delete(kind); // ask again the next time
  });
  return element;
}

function fill(element, card) {
  element.replaceChildren(
    h("h3", {}, icon("heart"), card.title),
    h("p", { text: card.text.trim() }),
    h("ul", {}, card.lines.map((line) => h("li", {},
      h("span", { class: "line-name", text: line.name }), contact(line.contact),
      (line.region || line.note) && h("span", { class: "line-note", text: [line.region, line.note].filter(Boolean).join(" · ") })))));
}

/** A number to tap or an address to open; anything longer stays text. */
function contact(text) {
  const host = /^[a-z0-9.-]+\.[a-z]{2,}(?:\/\S*)?$/i.test(text) && safeUrl(`https://${text}`);
  if (host) return h("a", { class: "line-contact", href: host, target: "_blank", rel: "noopener noreferrer", text });
  const digits = /^(?:call or text |call )?([+0-9][0-9 -]{1,20})$/i.exec(text)?.[1].replace(/[^+0-9]/g, "");
  if (digits) return h("a", { class: "line-contact", href: `tel:${digits}`, text });
  return h("span", { class: "line-contact", text });
}
