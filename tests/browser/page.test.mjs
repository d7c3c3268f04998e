// The main job, as a newcomer and their family would do it: the real server, the built-in model, a real browser.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, beforeEach, test } from "node:test";

import { ASSETS, answer, ask, openDevice, say, signIn, signUp, startBrowser, startHouse, until } from "./house.mjs";

const PASSWORD = "four quiet little words";
/** A small model that tells stories, slowly enough in a debug build to be interrupted. */
const STORYTELLER = path.resolve(ASSETS, "../../shared/fixtures/weights/stories260K/stories260K-F32.gguf");
let browser;
let house;
let device;
let page;
let code;

before(async () => {
  browser = await startBrowser();
  house = await startHouse();
  device = await openDevice(browser, house.url);
  page = device.page;
  code = await signUp(page, house.url);
});
after(async () => {
  await browser.close();
  await house.stop();
});

beforeEach(() => page.evaluate(() => document.querySelectorAll("dialog").forEach((dialog) => dialog.close())));

const newChat = async () => {
  await page.click("#new-chat");
  await page.waitForSelector("#welcome:not([hidden])");
};
const menu = async (title, label) => {
  const item = page.locator(`.chat-item:has-text("${title}")`);
  await item.hover();
  await item.locator(".chat-more").click();
  await page.click(`[role=menuitem]:has-text("${label}")`);
};
const listed = () => page.locator(".chat-name").allTextContents();

test("signing up shows a recovery code, once", async () => {
  assert.ok(code.length >= 20, code);
  const kept = await page.evaluate(() => JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.documentElement.innerHTML);
  assert.ok(!kept.includes(code), "the code is not kept by the page");
  const cookies = await page.evaluate(() => document.cookie);
  assert.equal(cookies, "", "scripts cannot read the session");
});

test("a bad day gets an answer, and a reload finds both again", async () => {
  const text = await ask(page, "I had a bad day");
  assert.ok(text.length > 10, text);
  assert.match(page.url(), /#\/c\/[0-9a-f-]{36}$/);
  await until("the title", async () => (await listed())[0] === "I had a bad day");
  await page.reload();
  assert.equal(await answer(page), text);
  assert.equal(await page.locator(".bubble").textContent(), "I had a bad day");
  assert.equal(await page.locator(".message.parents .written").count(), 1, "a common opening is answered from the written collection, and says so");
});

test("a second device finds it, and sees the next exchange live", async () => {
  const phone = await openDevice(browser, house.url, { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true });
  await signIn(phone.page, house.url);
  await phone.page.click("#show-sidebar");
  await phone.page.click(".chat-link");
  await phone.page.waitForSelector(".message.parents .foot");
  assert.equal(await phone.page.locator(".message").count(), 2);
  const text = await ask(page, "Brumblefizz wotzel, quandrip");
  await phone.page.waitForSelector(".bubble:has-text('Brumblefizz')");
  await until("the same words on both devices", async () => (await phone.page.locator(".message.parents.last .words").innerText()).trim() === text);
  await say(phone.page, "Written on the phone");
  await page.waitForSelector(".bubble:has-text('Written on the phone')");
  const there = await answer(phone.page);
  await until("the answer here", async () => (await page.locator(".message.parents.last .words").innerText()).trim() === there);
  assert.equal(await page.locator(".message").count(), 6);
  assert.deepEqual(await phone.check(), []);
  await phone.close();
});

test("stop ends an answer and keeps what was said", async () => {
  // The built-in model is done before anybody can press a button; this one tells until its context is full.
  const teller = await startHouse("--model", STORYTELLER);
  const guest = await openDevice(browser, teller.url);
  await signUp(guest.page, teller.url);
  await say(guest.page, "Please tell me a long story about a house by the sea, with everything in it");
  await guest.page.waitForFunction(() => document.querySelector(".message.parents.last .words")?.textContent.length > 20);
  await guest.page.keyboard.press("Escape");
  const said = await answer(guest.page);
  assert.ok(said.length > 20, said);
  await guest.page.waitForSelector(".message.last .note:has-text('You stopped')");
  await guest.page.reload();
  await guest.page.waitForSelector(".message.last .note:has-text('You stopped')");
  assert.equal(await answer(guest.page), said);
  assert.deepEqual(await guest.check(), []);
  await guest.close();
  await teller.stop();
});

test("another answer and an edited message stand beside the old ones", async () => {
  await newChat();
  await ask(page, "I can't sleep");
  await page.locator(".message.last button[aria-label='Another answer']").click();
  await page.waitForSelector(".message.parents .version:has-text('2/2')");
  await answer(page);
  await page.locator(".message.parents.last .foot button[aria-label^='How fast']").click();
  assert.match(await page.locator(".timings").innerText(), /\d+ tokens in .* tokens\/s/);
  await page.click(".message.parents button[aria-label='Earlier version']");
  await page.waitForSelector(".message.parents .version:has-text('1/2')");
  await page.locator(".message.mine").hover();
  await page.click(".message.mine button[aria-label^='Edit']");
  await page.fill(".edit-form textarea", "I can't sleep, it is too hot");
  await page.click(".edit-form .primary");
  await page.waitForSelector(".message.mine .version:has-text('2/2')");
  const edited = await answer(page);
  await page.click(".message.mine button[aria-label='Earlier version']");
  await page.waitForSelector(".bubble:text-is(\"I can't sleep\")");
  await page.reload();
  assert.equal(await answer(page), edited, "a reload shows the newest branch");
  assert.equal(await page.locator(".message").count(), 2);
});

test("rename, pin, archive, and delete with a way back", async () => {
  await newChat();
  await ask(page, "What is for supper?");
  await menu("What is for supper?", "Rename");
  await page.fill(".chat-list .title-input", "Supper ä 🍲");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".topbar .title-button:has-text('Supper ä 🍲')");
  await menu("Supper", "Pin");
  await page.waitForSelector(".chat-group:has(h2:text-is('Pinned')) .chat-name:has-text('Supper')");
  await menu("Supper", "Archive");
  await page.click("text=Archived (1)");
  await page.waitForSelector(".chat-group:has(h2:text-is('Archived')) .chat-name:has-text('Supper')");
  await menu("Supper", "Take out");
  await page.waitForSelector(".chat-group:has(h2:text-is('Pinned')) .chat-name:has-text('Supper')");
  await menu("Supper", "Delete");
  await until("the list without it", async () => !(await listed()).some((title) => title.includes("Supper")));
  await page.click(".toast:has-text('Deleted') .toast-action");
  await page.waitForSelector(".chat-name:has-text('Supper')");
  await page.reload();
  await page.waitForSelector(".chat-name:has-text('Supper')");
  await menu("Supper", "Delete");
  const gone = await page.waitForResponse((response) => response.request().method() === "DELETE");
  assert.equal(gone.status(), 204);
  await page.reload();
  await page.waitForSelector(".chat-link");
  assert.ok(!(await listed()).some((title) => title.includes("Supper")));
});

test("a deleted chat stays deleted when the tab is closed before the undo is over", async () => {
  await newChat();
  await ask(page, "This one goes for good");
  await menu("This one goes", "Delete");
  await page.reload();
  await page.waitForSelector(".chat-link");
  assert.ok(!(await listed()).some((title) => title.includes("This one goes")));
});

test("search finds what was said and leads there", async () => {
  await newChat();
  await ask(page, "My cat Pirate ate the tulips");
  await newChat();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("tulips");
  await page.waitForSelector(".hit mark:text-is('tulips')");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".bubble:has-text('Pirate')");
});

test("settings: name, picture, who answers, memories, devices", async () => {
  await page.click("#open-settings");
  await page.fill(".section input[type=text]", "Ada Lovelace");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".me-name:text-is('Ada Lovelace')");
  await page.click(".swatch >> nth=2");
  await page.waitForSelector(".swatch[aria-pressed=true]");
  await page.setInputFiles("input[type=file]", { name: "a.png", mimeType: "image/png", buffer: await page.screenshot() });
  await page.waitForSelector("#open-settings img.avatar");
  await page.click(".segments label:has-text('Dad')");
  await until("the other parent", async () => (await page.getAttribute("#composer-input", "placeholder")).includes("Dad"));
  await page.click("[role=tab]:has-text('Memories')");
  await page.fill(".inline-form input", "My sister is called Lena.");
  await page.click(".inline-form button[type=submit]");
  await page.waitForSelector(".row-title:text-is('My sister is called Lena.')");
  await page.click(".row:has-text('called Lena') button[aria-label=Forget]");
  await page.waitForSelector(".row:has-text('called Lena')", { state: "detached" });
  await page.click("[role=tab]:has-text('Devices')");
  await page.waitForSelector(".badge:text-is('this one')");
  await page.keyboard.press("Escape");
  await page.reload();
  await page.waitForSelector("#open-settings img.avatar");
});

test("an API key is shown once and can be taken back", async () => {
  await page.click("#open-settings");
  await page.click("[role=tab]:has-text('API keys')");
  await page.fill(".inline-form input", "kitchen");
  await page.click(".inline-form button[type=submit]");
  const key = await page.locator(".secret-text").textContent();
  const call = () => fetch(`${house.url}/api/me`, { headers: { authorization: `Bearer ${key}` } });
  assert.equal((await call()).status, 200);
  await page.click("[role=tab]:has-text('Your data')");
  await page.click("[role=tab]:has-text('API keys')");
  await page.waitForSelector(".row-title:text-is('kitchen')");
  assert.equal(await page.locator(".secret-text").count(), 0);
  await page.click(".row button:has-text('Delete')");
  await page.click("dialog .button.danger");
  await page.waitForSelector(".row", { state: "detached" });
  assert.equal((await call()).status, 401);
  await page.keyboard.press("Escape");
});

test("everything can be taken out and brought into another house", async () => {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#open-settings").then(() => page.click("[role=tab]:has-text('Your data')")).then(() => page.click("text=Download everything"))]);
  const file = await download.path();
  await page.keyboard.press("Escape");
  const other = await startHouse();
  try {
    const guest = await openDevice(browser, other.url);
    await signUp(guest.page, other.url);
    await guest.page.click("#open-settings");
    await guest.page.click("[role=tab]:has-text('Your data')");
    await guest.page.setInputFiles("input[type=file]", file);
    await guest.page.waitForSelector(".section [role=status]:has-text('Done')");
    await guest.page.keyboard.press("Escape");
    await guest.page.click(".chat-link:has-text('tulips')");
    await guest.page.waitForSelector(".bubble:has-text('Pirate')");
    assert.deepEqual(await guest.check(), []);
    await guest.close();
  } finally {
    await other.stop();
  }
});

test("the admin invites a child, who has a fixed parent and no house settings", async () => {
  await page.click("#open-settings");
  await page.click("[role=tab]:has-text('Invitations')");
  await page.selectOption(".inline-form select", "child");
  await page.click(".inline-form button[type=submit]");
  const link = await page.locator(".secret-text").textContent();
  const child = await openDevice(browser, house.url);
  await signUp(child.page, link, { email: "kit@example.org", password: "a dragon under my bed", name: "Kit" });
  await child.page.waitForSelector(".starter:has-text('bedtime story')");
  assert.ok(!child.page.url().includes("invite"), "the code leaves the address");
  await child.page.click("#open-settings");
  assert.equal(await child.page.locator("text=Who answers you").count(), 0);
  assert.equal(await child.page.locator("[role=tab]:has-text('People')").count(), 0);
  await page.click("[role=tab]:has-text('People')");
  const row = page.locator(".row:has-text('Kit')");
  await row.locator(".icon-button").click();
  await page.click("[role=menuitem]:has-text('Keep out')");
  await child.page.waitForSelector("#auth form");
  await page.waitForSelector(".row.off:has-text('Kit')");
  await page.click("[role=tab]:has-text('Health')");
  await page.waitForSelector(".facts");
  assert.deepEqual(await child.check(), []);
  await child.close();
  await page.keyboard.press("Escape");
});

test("danger shows the card of its kind, beside the message", async () => {
  await newChat();
  await say(page, "I want to kill myself tonight");
  await page.waitForSelector(".message.mine .safety-card h3:has-text('safe tonight')");
  await answer(page);
  await page.reload();
  await page.waitForSelector(".safety-card");
});

for (const [name, options] of [["phone", { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, colorScheme: "dark" }], ["small phone, large text", { viewport: { width: 320, height: 568 }, isMobile: true, hasTouch: true }], ["wide", { viewport: { width: 1680, height: 950 }, colorScheme: "dark" }]]) {
  test(`nothing sticks out sideways: ${name}`, async () => {
    const other = await openDevice(browser, house.url, options);
    const narrow = async (what) => {
      const [wide, has] = await other.page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
      assert.ok(wide <= has, `${what}: ${wide} > ${has}`);
    };
    await other.page.goto(house.url);
    await other.page.waitForSelector("#auth form");
    await narrow("the door");
    await signIn(other.page, house.url);
    await other.page.waitForSelector("#welcome h2");
    await narrow("welcome");
    if (options.colorScheme === "dark") {
      const light = await other.page.evaluate(() => Number(/\d+/.exec(getComputedStyle(document.body).backgroundColor)[0]));
      assert.ok(light < 80, "dark when the device is");
    }
    await ask(other.page, `A very long word: ${"a".repeat(300)} and a long line`);
    await narrow("a chat");
    await other.page.keyboard.press("Control+b");
    await narrow("the list");
    await other.page.evaluate(() => document.getElementById("open-settings").click());
    for (const tab of await other.page.locator("[role=tab]").all()) {
      await tab.click();
      await narrow(await tab.textContent());
    }
    assert.deepEqual(await other.check(), []);
    await other.close();
  });
}

test("light and dark can be chosen, and stay", async () => {
  const shade = () => page.evaluate(() => Number(/\d+/.exec(getComputedStyle(document.body).backgroundColor)[0]));
  assert.ok((await shade()) > 200);
  await page.click("#toggle-theme");
  await page.click("#toggle-theme");
  assert.ok((await shade()) < 80);
  await page.reload();
  assert.ok((await shade()) < 80);
  await page.click("#toggle-theme");
});

test("with the keyboard alone", async () => {
  await page.keyboard.press("Control+Shift+O");
  await page.waitForSelector("#welcome:not([hidden])");
  await page.waitForFunction(() => document.activeElement.id === "composer-input");
  await page.keyboard.type("first line");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("second line");
  await page.keyboard.press("Enter");
  await answer(page);
  assert.equal(await page.locator(".bubble").textContent(), "first line\nsecond line");
  await page.keyboard.press("Control+Shift+E");
  await page.waitForSelector(".edit-form textarea:focus");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+b");
  await page.waitForSelector("#sidebar", { state: "hidden" });
  await page.keyboard.press("Control+b");
  await page.waitForSelector("#sidebar", { state: "visible" });
});

test("every control has a name, every field a label, every id is there once", async () => {
  const nameless = await page.evaluate(() => [
    ...[...document.querySelectorAll("button, a[href], input, textarea, select")]
      .filter((element) => element.offsetParent && !(element.ariaLabel || element.textContent.trim() || element.labels?.length || element.title))
      .map((element) => element.outerHTML.slice(0, 120)),
    ...[...document.querySelectorAll("[id]")].filter((element) => document.querySelectorAll(`[id="${element.id}"]`).length > 1).map((element) => `id ${element.id}`),
    ...[...document.querySelectorAll("img:not([alt])")].map((element) => element.outerHTML.slice(0, 80)),
  ]);
  assert.deepEqual(nameless, []);
});

test("every file comes from here, with the headers that keep it so", async () => {
  const files = await page.evaluate(() => performance.getEntriesByType("resource").map((entry) => entry.name));
  assert.ok(files.some((name) => name.endsWith("/stream.js")));
  for (const name of files) assert.equal(new URL(name).origin, house.url);
  for (const name of ["/", ...files.filter((file) => /\.(js|css|svg)$/.test(file)).map((file) => new URL(file).pathname), "/nothing-here"]) {
    const response = await fetch(house.url + name);
    assert.match(response.headers.get("content-security-policy"), /default-src 'none'.*script-src 'self'/);
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  }
});

test("changing the password, forgetting it, and coming back with the code", async () => {
  await page.click("#open-settings");
  await page.click("[role=tab]:has-text('Password')");
  await page.fill("[autocomplete=current-password]", "not my password");
  await page.fill("[autocomplete=new-password]", "five other quiet little words");
  await page.click(".section button[type=submit]");
  await page.waitForSelector(".form-message:has-text('not your password')");
  await page.fill("[autocomplete=current-password]", PASSWORD);
  await page.click(".section button[type=submit]");
  await page.waitForSelector(".toast:has-text('changed')");
  await page.keyboard.press("Escape");
  const other = await openDevice(browser, house.url);
  await other.page.goto(house.url);
  await other.page.click("text=I forgot my password");
  await other.page.waitForSelector(".warning:has-text('lost for good')");
  await other.page.fill("[name=email]", "ada@example.org");
  await other.page.fill("[name=recovery_code]", code);
  await other.page.fill("[name=password]", "six more quiet little words here");
  await other.page.click("#auth button[type=submit]");
  const fresh = await other.page.locator("#recovery-code").textContent();
  assert.notEqual(fresh, code);
  await other.page.check("#code-kept");
  await other.page.click("dialog .button.primary");
  await other.page.click(".chat-link:has-text('tulips')");
  await other.page.waitForSelector(".bubble:has-text('Pirate')");
  // The first device was signed out by this, at once and without a click.
  await page.waitForSelector("#auth form");
  assert.equal(await page.locator(".bubble").count(), 0);
  await signIn(page, house.url, { password: "six more quiet little words here" });
  assert.deepEqual(await other.check(), []);
  await other.close();
});

test("after signing out, Back shows nothing", async () => {
  await page.click(".chat-link:has-text('tulips')");
  await page.waitForSelector(".bubble:has-text('Pirate')");
  await page.click("#open-settings");
  await page.click("[role=tab]:has-text('Devices')");
  await page.click("text=Sign out here");
  await page.waitForSelector("#auth form");
  for (let i = 0; i < 3; i += 1) {
    await page.goBack().catch(() => {});
    await page.waitForSelector("#auth form");
    const text = await page.evaluate(() => document.body.textContent);
    assert.ok(!text.includes("Pirate") && !text.includes("tulips"), "nothing of the chats is left");
  }
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

test("nothing went wrong on the way", async () => {
  assert.deepEqual(await device.check(), []);
});
