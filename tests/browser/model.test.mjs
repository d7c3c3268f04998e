// The admin's choice of the model that answers, on a wide screen and on a phone: the real server, a real browser.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFile, mkdtemp, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import { ASSETS, ask, openDevice, signIn, signUp, startBrowser, startHouse } from "./house.mjs";

/** As long as names of real files are. */
const LONG = "Mother-of-Pearl-Instruct-2507-30B-A3B-Q4_K_M.gguf";
const BROKEN = "broken.gguf";
const PHONE = { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true, colorScheme: "dark" };
let browser;
let house;
let device;
let page;
let beside;

before(async () => {
  browser = await startBrowser();
  house = await startHouse();
  beside = await mkdtemp(path.join(tmpdir(), "mommygpt-models-"));
  device = await openDevice(browser, house.url);
  page = device.page;
  await signUp(page, house.url);
});
after(async () => {
  await browser.close();
  await house.stop();
  await rm(beside, { recursive: true, force: true });
});

/** Opens the settings where the house's health stands. */
async function health(on) {
  await on.click("#open-settings");
  await on.click("[role=tab]:has-text('Health')");
  await on.waitForSelector(".settings-panel .facts");
}
const close = (on) => on.evaluate(() => document.querySelectorAll("dialog").forEach((dialog) => dialog.close()));
const chosen = (on) => on.locator(".settings-panel select").inputValue();
/** Where somebody asks for pictures to look at. */
const picture = (on, name) => process.env.MOMMYGPT_PICTURES && on.screenshot({ path: path.join(process.env.MOMMYGPT_PICTURES, `${name}.png`) });

test("where there is one model only, there is nothing to choose", async () => {
  await health(page);
  assert.equal(await page.locator(".settings-panel select").count(), 0);
  await close(page);
});

test("another model takes over, and the chat goes on", async () => {
  await ask(page, "Good morning to you");
  const file = path.join(beside, LONG);
  await copyFile(path.resolve(ASSETS, "../models/mommy.gguf"), file);
  execFileSync(process.env.MOMMYGPT_BIN, ["import", "--dir", house.dir, file]);
  await health(page);
  assert.equal(await chosen(page), "builtin");
  await picture(page, "model-wide");
  await page.selectOption(".settings-panel select", LONG);
  await page.click("button:has-text('Let it answer')");
  await page.waitForSelector(`text=${LONG} answers now.`);
  assert.equal(await chosen(page), LONG);
  await page.reload();
  await health(page);
  assert.equal(await chosen(page), LONG, "it is the server that knows");
  await close(page);
  const text = await ask(page, "And how was your day?");
  assert.ok(text.length > 5, text);
  assert.equal(await page.locator(".message").count(), 4);
});

test("a model that is none is refused by name, and the other one goes on answering", async () => {
  const file = path.join(house.dir, "models", BROKEN);
  await copyFile(path.resolve(ASSETS, "../models/mommy.gguf"), file);
  await truncate(file, 100_000);
  await health(page);
  await page.selectOption(".settings-panel select", BROKEN);
  await page.click("button:has-text('Let it answer')");
  await page.waitForSelector(`.toast:has-text('${BROKEN}')`);
  await picture(page, "model-refused");
  await page.click("[role=tab]:has-text('You')");
  await page.click("[role=tab]:has-text('Health')");
  await page.waitForSelector(".settings-panel select");
  assert.equal(await chosen(page), LONG);
  await close(page);
  assert.ok((await ask(page, "Still there?")).length > 2);
});

test("on a phone, in the dark, all of it fits and can be pressed", async () => {
  const phone = await openDevice(browser, house.url, PHONE);
  await signIn(phone.page, house.url);
  await phone.page.click("#show-sidebar");
  await health(phone.page);
  const select = phone.page.locator(".settings-panel select");
  await select.scrollIntoViewIfNeeded();
  await picture(phone.page, "model-phone");
  for (const part of [select, phone.page.locator("button:has-text('Let it answer')")]) {
    const box = await part.boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= PHONE.viewport.width, JSON.stringify(box));
    assert.ok(box.height >= 40, `${box.height} is too low for a thumb`);
  }
  const width = await phone.page.evaluate(() => Math.max(document.documentElement.scrollWidth, document.querySelector(".settings-panel").scrollWidth));
  assert.ok(width <= PHONE.viewport.width, `something is ${width} wide`);
  await phone.page.selectOption(".settings-panel select", "builtin");
  await phone.page.click("button:has-text('Let it answer')");
  await phone.page.waitForSelector("text=builtin answers now.");
  assert.deepEqual(await phone.check(), []);
  await phone.close();
});

test("nothing went wrong on the way", async () => {
  assert.deepEqual(await device.check(), []);
});
