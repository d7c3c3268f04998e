// The page before the first words of a chat.

import { $, h, replace } from "./dom.js";
import { hear, parentName, state } from "./state.js";

const PARTS = [
  { from: 5, greeting: "Good morning", ask: "Did you sleep all right?" },
  { from: 12, greeting: "Good afternoon", ask: "How is the day treating you?" },
  { from: 18, greeting: "Good evening", ask: "How was today, really?" },
  { from: 23, greeting: "Still up", ask: "What is keeping you awake?" },
];
const STARTERS = {
  grown: ["I had a bad day", "I'm worried about tomorrow", "Something good happened today", "What should I make for supper?"],
  child: ["Tell me a bedtime story", "I had a fight with my friend", "I can't sleep", "Guess what I did today!"],
};

export function setUpWelcome(send) {
  const show = () => {
    const root = $("welcome");
    const empty = !state.current && state.me;
    root.hidden = !empty;
    document.body.classList.toggle("on-welcome", Boolean(empty));
    if (!empty) return;
    const part = PARTS.findLast(({ from }) => new Date().getHours() >= from) ?? PARTS.at(-1);
    const name = state.me.full_name?.trim();
    const mark = part.greeting === "Still up" ? "?" : ".";
    replace(root,
      h("span", { class: "lamp", "aria-hidden": "true" }, h("span", { class: "brand-mark large" })),
      h("h2", { text: name ? `${part.greeting}, ${name}${mark}` : `${part.greeting}${mark}` }),
      h("p", { class: "lead", text: part.ask }),
      h("ul", { class: "starters", "aria-label": `Ways to begin with ${parentName()}` }, STARTERS[state.me.role === "child" ? "child" : "grown"].map((text) =>
        h("li", {}, h("button", { type: "button", class: "starter", text, onclick: () => send(text) })))));
  };
  hear("current", show);
  hear("me", show);
}
