// What the markdown makes of ordinary text, in a real document.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { startDouble } from "./double.mjs";
import { ASSETS, openDevice, startBrowser } from "./house.mjs";

let browser;
let double;
let device;

before(async () => {
  browser = await startBrowser();
  double = await startDouble(ASSETS);
  device = await openDevice(browser, double.url);
  await device.page.goto(double.url);
});
after(async () => {
  await browser.close();
  await double.close();
});

/** The elements as short text: `p(a strong(b))`; code blocks without their head. */
function outline(text) {
  return device.page.evaluate(async (source) => {
    const { showMarkdown } = await import("/markdown.js");
    const root = document.createElement("div");
    showMarkdown(root, source);
    const write = (node) => {
      if (node.nodeType === Node.TEXT_NODE) return node.data.replaceAll("\n", "⏎");
      if (node.className === "code") return `pre[${node.querySelector(".code-head span").textContent}](${node.querySelector("code").textContent.replaceAll("\n", "⏎")})`;
      const name = node.tagName.toLowerCase();
      const inside = [...node.childNodes].map(write).join("");
      if (["bdi", "div"].includes(name) || node.className === "url") return inside;
      return name === "a" ? `a<${node.getAttribute("href")}>(${inside})` : inside === "" ? name : `${name}(${inside})`;
    };
    return [...root.childNodes].map(write).join(" ");
  }, text);
}

const CASES = [
  ["one\ntwo\n\nthree", "p(onebrtwo) p(three)"],
  ["a **b** *c* ***d*** _e_ ~~f~~ `g`", "p(a strong(b) em(c) strong(em(d)) em(e) del(f) code(g))"],
  ["2 * 3 * 4 and snake_case_name and **open", "p(2 * 3 * 4 and snake_case_name and **open)"],
  ["# One #\n## Two\n####### seven", "h3(One) h4(Two) p(####### seven)"],
  ["C# is fine\n\n# C#", "p(C# is fine) h3(C#)"],
  ["- a\n- b\n  - c\n- d", "ul(li(a)li(bul(li(c)))li(d))"],
  ["1. a\n2. b", "ol(li(a)li(b))"],
  ["3) a\n4) b", "ol(li(a)li(b))"],
  ["- a\n\n- b", "ul(li(a)li(b))"],
  ["> a\n> b\n\nc", "blockquote(p(abrb)) p(c)"],
  ["a\n\n---\n\nb", "p(a) hr p(b)"],
  ["```js\nlet a = `<b>`;\n\nb\n```\nc", "pre[js](let a = `<b>`;⏎⏎b) p(c)"],
  ["```\nstill open", "pre[text](still open)"],
  ["| a | b |\n|---|:-:|\n| 1 | **2** |\n| 3 |", "table(thead(tr(th(a)th(b)))tbody(tr(td(1)td(strong(2)))tr(td(3)td)))"],
  ["see https://example.org/a_(b).", "p(see a<https://example.org/a_(b)>(https://example.org/a_(b)).)"],
  ["[a *b*](https://example.org/x)", "p(a<https://example.org/x>(a em(b)) (https://example.org/x))"],
  ["![cat](https://example.org/cat.png)", "p(a<https://example.org/cat.png>(Picture: cat) (https://example.org/cat.png))"],
  ["<mailto:a@example.org>", "p(a<mailto:a@example.org>(mailto:a@example.org))"],
  ["[a](javascript:b)", "p([a](javascript:b))"],
  ["\\*not\\* `a\\*b`", "p(*not* code(a\\*b))"],
  ["a <b>c</b> &amp; d", "p(a <b>c</b> &amp; d)"],
  ["Grüße 🫖\r\nzwei", "p(Grüße 🫖brzwei)"],
];

for (const [source, expected] of CASES) {
  test(JSON.stringify(source), async () => {
    assert.equal(await outline(source), expected);
  });
}

test("an address in another script is shown as it goes over the wire", async () => {
  assert.match(await outline("[bank](https://xn--pple-43d.example) https://аpple.example/"), /xn--/);
});

test("growing text keeps the elements that did not change", async () => {
  const kept = await device.page.evaluate(async () => {
    const { showMarkdown } = await import("/markdown.js");
    const root = document.createElement("div");
    showMarkdown(root, "first\n\nsec");
    const [first] = root.children;
    showMarkdown(root, "first\n\nsecond\n\n- third");
    return [root.children[0] === first, root.children.length, root.textContent];
  });
  assert.deepEqual(kept, [true, 3, "firstsecondthird"]);
});

test("text made to be slow is shown all the same", async () => {
  const lengths = await device.page.evaluate(async () => {
    const { showMarkdown } = await import("/markdown.js");
    const n = 190_000;
    const fill = (piece) => piece.repeat(Math.floor(n / piece.length));
    return ["[", "*", "*a ", "_a", "`", "``a`", "[](", "![a](<", "> ", "- ", "|", "#", "~~a", "h", "https://a", "<", "\\", "1. ", "a\n- ", "  ", "| - ", "**a*b"].map((piece) => {
      const root = document.createElement("div");
      showMarkdown(root, `x\n${fill(piece)}`);
      return root.textContent.length > 0;
    });
  });
  assert.ok(lengths.every(Boolean));
});
