// The real server on an empty data directory, and devices: browsers that report everything that must not happen.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

export const ASSETS = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../assets");
/** How long anything may take before a test gives up; far longer than anything takes, also beside compilers on two cores. */
export const DEADLINE_MS = 240_000;
/** What payloads set or call when they run. */
export const MARKER = "xssMarker";

/** Polls until `ask` gives something true. */
export async function until(what, ask) {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`still waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = net.createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** Starts `mommygpt serve` and waits until it is ready. */
export async function startHouse(...args) {
  const dir = await mkdtemp(path.join(tmpdir(), "mommygpt-browser-"));
  const port = await freePort();
  const child = spawn(process.env.MOMMYGPT_BIN, ["serve", "--dir", dir, "--port", String(port), ...args], { stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const pipe of [child.stdout, child.stderr]) pipe.on("data", (text) => (said += text));
  const exited = new Promise((resolve) => child.once("exit", resolve));
  const url = `http://127.0.0.1:${port}`;
  await until("the server", async () => {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}:\n${said}`);
    return (await fetch(`${url}/health/ready`).catch(() => null))?.ok;
  });
  const stop = async () => {
    child.kill("SIGTERM");
    await exited;
    await rm(dir, { recursive: true, force: true });
  };
  return { url, dir, stop, said: () => said };
}

export function startBrowser() {
  const args = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"];
  if (process.getuid?.() === 0) args.push("--no-sandbox"); // Chromium refuses its sandbox to root
  return chromium.launch({ executablePath: process.env.MOMMYGPT_CHROMIUM, args });
}

/** A device: its own cookies and storage. `problems` collects what must stay empty. */
export async function openDevice(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  context.setDefaultTimeout(DEADLINE_MS / 2);
  const problems = [];
  await context.exposeBinding("reportViolation", (_source, text) => {
    problems.push(`CSP violation: ${text}`);
  });
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
  });
  const page = await context.newPage();
  page.on("dialog", (dialog) => {
    problems.push(`dialog: ${dialog.message()}`);
    dialog.dismiss().catch(() => {});
  });
  page.on("pageerror", (error) => problems.push(`script error: ${error.stack}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${url}/`) && !request.url().startsWith("data:")) problems.push(`foreign request: ${request.url()}`);
  });
  context.on("page", (opened) => problems.push(`window opened: ${opened.url()}`));
  /** What must not have happened, looked for once more. */
  const check = async () => {
    if (await page.evaluate((name) => Boolean(window[name]), MARKER)) problems.push("a payload ran");
    return problems;
  };
  return { context, page, problems, check, close: () => context.close() };
}

/** A listener that nobody may ever reach. */
export async function startEvil() {
  const hits = [];
  const server = http.createServer((request, response) => {
    hits.push(request.url);
    response.writeHead(200, { "access-control-allow-origin": "*", "content-type": "text/javascript" });
    response.end(`window.${MARKER}=1`);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, hits, close: () => server.close() };
}

/** Signs up in the page and confirms the recovery code; gives the code. */
export async function signUp(page, url, { email = "ada@example.org", password = "four quiet little words", name = "Ada" } = {}) {
  await page.goto(url);
  await page.fill("[name=email]", email);
  await page.fill("[name=full_name]", name);
  await page.fill("[name=password]", password);
  await page.click("#auth button[type=submit]");
  const code = await page.locator("#recovery-code").textContent();
  await page.check("#code-kept");
  await page.click("dialog .button.primary");
  await page.waitForSelector("#welcome h2");
  return code;
}

export async function signIn(page, url, { email = "ada@example.org", password = "four quiet little words" } = {}) {
  await page.goto(url);
  await page.waitForSelector("#auth form");
  if (await page.locator("[name=full_name]").count()) await page.click("text=I have an account");
  await page.fill("[name=email]", email);
  await page.fill("[name=password]", password);
  await page.click("#auth button[type=submit]");
  await page.waitForSelector("#app:not([hidden])");
}

/** Sends a message without waiting for the answer. */
export async function say(page, text) {
  await page.waitForSelector("#send[data-mode=send]");
  await page.fill("#composer-input", text);
  await page.click("#send");
}

/** Waits until nothing is being written any more; gives the text of the last answer. */
export async function answer(page) {
  await page.waitForSelector("#send[data-mode=send]");
  await page.waitForSelector(".message.parents.last .foot");
  return (await page.locator(".message.parents.last .words").innerText()).trim();
}

/** Sends a message and gives the whole answer. */
export async function ask(page, text) {
  const before = await page.locator(".message").count();
  await say(page, text);
  await page.waitForFunction((n) => document.querySelectorAll(".message").length >= n, before + 2);
  return answer(page);
}
