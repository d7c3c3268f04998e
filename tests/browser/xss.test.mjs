// Nothing that anybody writes runs: not the person, not a title or a name, not the model, however it arrives.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";

import { startDouble } from "./double.mjs";
import { ASSETS, ask, openDevice, say, signUp, startBrowser, startEvil, startHouse, until } from "./house.mjs";
import { payloads } from "./payloads.mjs";

let browser;
let evil;
let corpus;

before(async () => {
  browser = await startBrowser();
  evil = await startEvil();
  corpus = payloads(evil.url);
});
after(async () => {
  await browser.close();
  evil.close();
});

/** What the page made of everything: nothing that runs, loads, or leads anywhere but http, https and mailto. */
async function assertHarmless(device, what) {
  const found = await device.page.evaluate(() => {
    const wrong = [];
    const ours = new Set([...document.querySelectorAll("head script")]);
    for (const element of document.querySelectorAll("*")) {
      const inside = element.closest(".log, .chat-list, .topbar, .toasts, dialog, #welcome, .sidebar-foot");
      for (const { name, value } of element.attributes) {
        if (name.startsWith("on")) wrong.push(`${element.tagName} has ${name}`);
        if (/^\s*(javascript|vbscript|data:text)/i.test(value)) wrong.push(`${element.tagName} ${name}=${value.slice(0, 60)}`);
      }
      if (!inside) continue;
      if (/^(script|iframe|object|embed|link|meta|base|style|video|audio|form|frameset|math|foreignobject)$/i.test(element.tagName) && !ours.has(element) && !element.closest(".settings, .edit-form")) wrong.push(`<${element.tagName}>`);
      if (element.tagName === "IMG" && !element.src.startsWith("data:image/")) wrong.push(`IMG ${element.src}`);
      if (element.tagName === "A" && element.hasAttribute("href")) {
        const local = element.getAttribute("href").startsWith("#/") || element.getAttribute("href") === "/api/export";
        const safe = ["http:", "https:", "mailto:", "tel:"].includes(element.protocol) && /noopener/.test(element.rel) && /noreferrer/.test(element.rel);
        if (!local && !safe) wrong.push(`A ${element.href} rel=${element.rel}`);
      }
    }
    return wrong;
  });
  assert.deepEqual(found, [], `${what}: elements`);
  assert.deepEqual(await device.check(), [], what);
  assert.deepEqual(evil.hits, [], `${what}: requests elsewhere`);
}

test("the corpus is large enough to mean something", () => {
  assert.ok(corpus.length >= 500, `${corpus.length} payloads`);
});

test("imported chats: as user text, as model text and as title", async () => {
  const house = await startHouse();
  try {
    const device = await openDevice(browser, house.url);
    await signUp(device.page, house.url);
    const chats = [];
    for (let at = 0; at < corpus.length; at += 40) chats.push(openWebUiChat(corpus[at], corpus.slice(at, at + 40)));
    for (const title of corpus.filter((_, i) => i % 10 === 5)) chats.push(openWebUiChat(title, ["a title"]));
    const status = await device.page.evaluate(async (body) => {
      const answer = await fetch("/api/import", { method: "POST", headers: { "content-type": "application/json" }, body });
      return `${answer.status} ${answer.ok ? "" : await answer.text()}`;
    }, JSON.stringify(chats));
    assert.match(status, /^20/);
    await device.page.reload();
    await device.page.waitForSelector(".chat-link");
    for (let more = device.page.locator("text=Show older chats"); await more.count(); ) {
      const before = await device.page.locator(".chat-link").count();
      await more.click();
      await until("older chats", async () => (await device.page.locator(".chat-link").count()) > before);
    }
    assert.ok((await device.page.locator(".chat-link").count()) >= chats.length);
    await assertHarmless(device, "the list of chats");
    const links = await device.page.$$eval(".chat-link", (found) => found.map((link) => link.getAttribute("href")));
    let seen = 0;
    for (const link of links) {
      await device.page.evaluate((hash) => {
        location.hash = hash;
      }, link);
      await device.page.waitForSelector(".message");
      while (await device.page.locator("#load-earlier:visible").count()) {
        const before = await device.page.locator(".message").count();
        await device.page.click("#load-earlier");
        await until("earlier messages", async () => (await device.page.locator(".message").count()) > before || !(await device.page.locator("#load-earlier:visible").count()));
      }
      seen += await device.page.locator(".message").count();
      await assertHarmless(device, `the chat ${link}`);
    }
    assert.ok(seen >= 2 * corpus.length, `only ${seen} messages were shown`);
    await device.close();
  } finally {
    await house.stop();
  }
});

/** A chat in Open WebUI's export: each payload once from the person and once from the model. */
function openWebUiChat(title, texts) {
  const messages = {};
  let parentId = null;
  let last = null;
  for (const content of texts) {
    for (const role of ["user", "assistant"]) {
      const id = randomUUID();
      messages[id] = { id, parentId, childrenIds: [], role, content, timestamp: 1_700_000_000 };
      if (parentId) messages[parentId].childrenIds.push(id);
      parentId = id;
      last = id;
    }
  }
  return { id: randomUUID(), title, chat: { title, history: { currentId: last, messages } } };
}

test("what is typed: messages, names, memories, keys and searches", async () => {
  const house = await startHouse();
  try {
    const device = await openDevice(browser, house.url, { userAgent: `Mozilla "><img src=x onerror=window.xssMarker=1>` });
    const { page } = device;
    await signUp(page, house.url, { name: `<img src=x onerror=window.xssMarker=1>` });
    await assertHarmless(device, "a name");
    for (const text of corpus.filter((_, i) => i % 97 === 0)) {
      await ask(page, text);
      assert.equal(await page.locator(".message.mine .bubble").last().textContent(), text, "what was typed is shown as it was typed");
    }
    await assertHarmless(device, "typed messages");
    const nasty = corpus.slice(0, 12);
    await page.evaluate(async (texts) => {
      const post = (path, body) => fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
      for (const text of texts) {
        await post("/api/memories", { content: text.slice(0, 200) });
        await post("/api/me/keys", { name: text.slice(0, 60) });
      }
    }, nasty);
    await page.click("#open-settings");
    for (const tab of await page.locator("[role=tab]").all()) {
      await tab.click();
      await page.waitForSelector(".section > *");
      await assertHarmless(device, "settings");
    }
    await page.keyboard.press("Escape");
    await page.keyboard.press("Control+k");
    for (const text of ["<script>", "onerror", `"><img src=x onerror=${"window.xssMarker=1"}>`]) {
      await page.fill("#search-hits ~ *, .search-input", text);
      await page.waitForSelector(".hit mark, .search-dialog [role=status]:not(:empty)");
      await assertHarmless(device, "search");
    }
    await device.close();
  } finally {
    await house.stop();
  }
});

test("an avatar is a colour or a small picture, whatever the server says", async () => {
  const double = await startDouble(ASSETS);
  try {
    for (const url of ["javascript:window.xssMarker=1", `${evil.url}/a.png`, "data:image/svg+xml;base64,PHN2Zy8+", "data:text/html,<script>1</script>", `color:red;background:url(${evil.url})`, `data:image/png;base64,x" onerror="window.xssMarker=1`]) {
      double.house.user.avatar_url = url;
      const device = await openDevice(browser, double.url);
      await device.page.goto(double.url);
      await device.page.waitForSelector("#open-settings .avatar");
      assert.equal(await device.page.locator("#open-settings img").count(), 0);
      await assertHarmless(device, url);
      await device.close();
    }
  } finally {
    await double.close();
  }
});

test("model text that streams in, an event for every character, the bytes cut small", async () => {
  const plain = payloads(evil.url, { nested: false });
  const answers = [];
  for (let at = 0; at < plain.length; at += 20) answers.push(plain.slice(at, at + 20).join("\n\n"));
  const double = await startDouble(ASSETS, { reply: (text) => [...answers[Number(text)]], cut: 61 });
  const device = await openDevice(browser, double.url);
  try {
    await device.page.goto(double.url);
    for (let i = 0; i < answers.length; i += 1) {
      await ask(device.page, String(i));
      await assertHarmless(device, `answer ${i}`);
    }
    const shown = await device.page.evaluate(() => document.querySelectorAll(".message.parents").length);
    assert.equal(shown, answers.length);
  } finally {
    await device.close();
    await double.close();
  }
});

test("model text whose bytes arrive one by one", async () => {
  const some = corpus.filter((_, i) => i % 23 === 0).concat("ä🫖 <script>window.xssMarker=1</script>");
  const double = await startDouble(ASSETS, { reply: (text) => [some[Number(text)]], cut: 1 });
  const device = await openDevice(browser, double.url);
  try {
    await device.page.goto(double.url);
    for (let i = 0; i < some.length; i += 1) await ask(device.page, String(i));
    await assertHarmless(device, "bytes one by one");
    assert.match(await device.page.locator(".words").last().innerText(), /ä🫖/);
  } finally {
    await device.close();
    await double.close();
  }
});

test("a danger card's words from the server are text, too", async () => {
  const double = await startDouble(ASSETS, { safety: () => "suicide" });
  const device = await openDevice(browser, double.url);
  try {
    await device.page.route("**/api/safety**", (route) => route.fulfill({ json: { title: corpus[6], text: corpus[0], lines: [{ name: corpus[11], contact: `javascript:${corpus[0]}`, note: corpus[7] }, { name: "a", contact: `${evil.url}/x` }] } }));
    await device.page.goto(double.url);
    await say(device.page, "hello");
    await until("the card", async () => (await device.page.locator(".safety-card h3").textContent()) === corpus[6]);
    await assertHarmless(device, "the card");
  } finally {
    await device.close();
    await double.close();
  }
});
