// What the network does to a conversation, done on purpose: cut, broken, refused, slow, and heard from elsewhere.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { startDouble } from "./double.mjs";
import { ASSETS, DEADLINE_MS, answer, ask, openDevice, say, startBrowser, until } from "./house.mjs";

const STORY = "Once, in Käthe's kitchen 🫖, the kettle sang. Everybody listened. Nobody spoke until it was done.";
const words = (text) => text.match(/\S+\s*/g);

let browser;
let double;
let device;
let page;

before(async () => {
  browser = await startBrowser();
});
after(() => browser.close());
beforeEach(async () => {
  double = await startDouble(ASSETS, { reply: () => words(STORY), pauseMs: 5 });
  device = await openDevice(browser, double.url);
  page = device.page;
  await page.goto(double.url);
});
afterEach(async () => {
  assert.deepEqual(await device.check(), []);
  for (const context of browser.contexts()) await context.close();
  await double.close();
});

/** Lets the test give out the answer, so that it can neither end too early nor run away on a slow machine. */
function tap() {
  let given = 0;
  let asked = 0;
  const waiting = [];
  double.set.next = () => {
    asked += 1;
    return asked <= given ? null : new Promise((resolve) => waiting.push(resolve));
  };
  return {
    give(deltas) {
      const free = given - asked + waiting.length + deltas;
      given += deltas;
      for (const resolve of waiting.splice(0, free)) resolve();
    },
    open() {
      double.set.next = () => null;
      for (const resolve of waiting.splice(0)) resolve();
    },
  };
}

const sends = () => double.house.requests.filter((request) => /^POST .*\/messages$/.test(request)).length;

test("a stream in pieces of one byte reads like any other", async () => {
  double.set.cut = 1;
  assert.equal(await ask(page, "tell me"), STORY);
});

test("a stream that breaks is joined again where it broke", async () => {
  double.set.breakAfter = 6;
  assert.equal(await ask(page, "tell me"), STORY);
  assert.equal(sends(), 1, "the message was sent once");
  assert.ok(double.house.requests.some((request) => request.endsWith("/stream")), "the stream was asked for again");
});

test("a message that did not get through says so, and the second try stores it once", async () => {
  double.set.deaf = true;
  await say(page, "can you hear me?");
  await page.waitForSelector(".message.failed .note");
  assert.equal(await page.locator(".message.mine .bubble").textContent(), "can you hear me?");
  double.set.deaf = false;
  await page.click(".message.failed .link-button");
  assert.equal(await answer(page), STORY);
  const mine = [...double.house.messages.values()].filter((message) => message.is_user);
  assert.equal(mine.length, 1);
});

test("a busy server is asked again by itself", async () => {
  double.set.refuse = [503, 503];
  await say(page, "hello?");
  await page.waitForSelector(".waiting-text:has-text('trying again')");
  assert.equal(await answer(page), STORY);
  assert.equal(sends(), 3);
});

test("a refusal is told in the server's words", async () => {
  double.set.refuse = [422];
  await say(page, "hello?");
  assert.match(await page.locator(".message.failed .note").innerText(), /Somebody else is speaking/);
});

test("the place in the queue is shown, then the reading, then the words", async () => {
  double.set.queue = [3, 1];
  const reply = tap();
  await say(page, "hello");
  await page.waitForSelector(".waiting-text:has-text('3 are before you')");
  reply.give(1);
  await page.waitForSelector(".waiting-text:has-text('You are next')");
  reply.give(1);
  await page.waitForSelector(".waiting progress");
  reply.give(1);
  await page.waitForSelector(".message.writing .words:has-text('Once')");
  reply.open();
  assert.equal(await answer(page), STORY);
});

test("Stop keeps what was said, and Esc stops, too", async () => {
  for (const press of [() => page.click("#send[data-mode=stop]"), () => page.keyboard.press("Escape")]) {
    const reply = tap();
    await say(page, "tell me");
    reply.give(4);
    await page.waitForSelector(".message.writing .words:has-text('kitchen')");
    await press();
    await until("the server to hear of it", () => [...double.house.runs.values()].some((run) => run.stopped));
    reply.open();
    await page.waitForSelector(".message.last .note:has-text('You stopped')");
    const shown = (await page.locator(".message.parents.last .words").innerText()).trim();
    assert.equal(shown, "Once, in Käthe's kitchen");
  }
});

test("a reload in the middle of an answer loses nothing", async () => {
  const reply = tap();
  await say(page, "tell me");
  reply.give(4);
  await page.waitForSelector(".message.writing .words:has-text('Käthe')");
  await page.reload();
  await page.waitForSelector(".message.writing .words:has-text('Käthe')");
  reply.open();
  assert.equal(await answer(page), STORY);
});

test("another device sees the message and the answer grow, in a chat that it has open", async () => {
  await ask(page, "first");
  const other = await openDevice(browser, double.url);
  await other.page.goto(page.url());
  await other.page.waitForSelector(".message.parents");
  const reply = tap();
  await say(page, "second");
  await other.page.waitForSelector(".message.mine:has-text('second')");
  reply.give(4);
  await other.page.waitForSelector(".message.writing .words:has-text('Käthe')");
  reply.open();
  assert.equal(await answer(other.page), STORY);
  assert.equal(await answer(page), STORY);
  assert.equal(await other.page.locator(".message").count(), 4);
  assert.deepEqual(await other.check(), []);
});

test("another device's list follows, and its open chat goes when it is deleted elsewhere", async () => {
  const other = await openDevice(browser, double.url);
  await other.page.goto(double.url);
  await ask(page, "a chat to be deleted");
  await other.page.click(".chat-link:has-text('a chat to be deleted')");
  await other.page.waitForSelector(".message.parents");
  await page.click(".chat-more");
  await page.click("[role=menuitem]:has-text('Delete')");
  await other.page.waitForSelector("#welcome:not([hidden])", { timeout: DEADLINE_MS / 2 });
  assert.equal(await other.page.locator(".chat-link").count(), 0);
});

test("scrolling up stops the page from running along; the button brings it back", async () => {
  double.set.reply = () => Array.from({ length: 400 }, (_, i) => `Line ${i}\n\n`);
  const reply = tap();
  const seen = () => page.evaluate(() => {
    const scroller = document.getElementById("scroller");
    return { top: scroller.scrollTop, below: scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight };
  });
  const lines = () => page.locator(".words p").count();
  await say(page, "a long one");
  reply.give(60);
  await until("60 lines", async () => (await lines()) >= 60);
  await until("the end, running along", async () => (await seen()).below < 2 && (await seen()).top > 200);
  await page.mouse.move(600, 400);
  await page.mouse.wheel(0, -300);
  await until("a place above the end", async () => (await seen()).below > 150);
  // The wheel scrolls in several steps: the reader's place is where it came to rest.
  let place = await seen();
  await until("the wheel to rest", async () => {
    const before = place.top;
    await new Promise((resolve) => setTimeout(resolve, 300));
    place = await seen();
    return place.top === before;
  });
  reply.give(40);
  await until("more lines", async () => (await lines()) >= 100);
  assert.equal((await seen()).top, place.top, "the reader's place stays");
  await page.click("#jump");
  await until("the end", async () => (await seen()).below < 2);
  reply.give(40);
  await until("the last lines", async () => (await lines()) >= 140);
  await until("the end, running along again", async () => (await seen()).below < 2);
  reply.open();
  await answer(page);
});

test("a turn of the wheel is not undone by words that come at the same time", async () => {
  double.set.reply = () => Array.from({ length: 4000 }, (_, i) => `Line ${i}\n\n`);
  double.set.pauseMs = 1;
  await say(page, "a long one");
  await until("something to scroll", () => page.evaluate(() => document.getElementById("scroller").scrollTop > 400));
  await page.mouse.move(600, 400);
  await page.mouse.wheel(0, -20);
  const button = await page.waitForSelector("#jump:not([hidden])");
  const top = () => page.evaluate(() => document.getElementById("scroller").scrollTop);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const place = await top();
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.ok((await button.isVisible()) && (await top()) <= place, "it stays where the reader stopped it");
  await page.keyboard.press("Escape");
  await answer(page);
});

test("sentences are announced whole", async () => {
  await ask(page, "tell me");
  const said = await page.locator("#announcer p").allTextContents();
  assert.ok(said.every((text) => text.endsWith(".")), said.join(" / "));
  assert.ok(said.length >= 3, "not all at once");
  assert.ok(said.join(" ").endsWith(STORY), said.join(" / "));
});

test("words that were not sent wait in their own chat", async () => {
  await ask(page, "one");
  await page.fill("#composer-input", "half a thought");
  await page.click("#new-chat");
  assert.equal(await page.inputValue("#composer-input"), "");
  await page.click(".chat-link");
  await until("the words are there again", async () => (await page.inputValue("#composer-input")) === "half a thought");
  const stored = await page.evaluate(() => JSON.stringify(localStorage));
  assert.ok(!stored.includes("half a thought"), "nothing written is left on the disk");
});

test("the danger card stands beside the message, with words of its own when the server has none", async () => {
  double.set.safety = (text) => (text.includes("hurt") ? "selfharm" : null);
  await ask(page, "I am fine");
  assert.equal(await page.locator(".safety-card").count(), 0);
  await ask(page, "I want to hurt myself");
  assert.equal(await page.locator(".message.mine .safety-card").count(), 1);
  assert.match(await page.locator(".safety-card").innerText(), /Emergency services/);
  await page.reload();
  await page.waitForSelector(".message.mine .safety-card");
});
