// Runs the browser tests: `node run.mjs [path of the mommygpt binary]`.
//
// Fetches what is missing first: playwright-core at the version of package-lock.json, and, where this runs as root on
// a system with apt, Chromium. Exit code 77 says that something is missing and could not be fetched.

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const HERE = path.dirname(fileURLToPath(import.meta.url));
const ROOT = path.resolve(HERE, "../..");
const MISSING = 77;
/** Names under which a Chromium is found, in the order of preference. */
const BROWSERS = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];

function miss(text) {
  console.error(`browser tests: ${text}`);
  process.exit(MISSING);
}

function findOnPath(names) {
  for (const name of names) {
    for (const folder of (process.env.PATH ?? "").split(path.delimiter)) {
      if (folder && existsSync(path.join(folder, name))) return path.join(folder, name);
    }
  }
  return null;
}

function findBrowser() {
  if (process.env.MOMMYGPT_CHROMIUM) return process.env.MOMMYGPT_CHROMIUM;
  const found = findOnPath(BROWSERS);
  if (found) return found;
  if (process.getuid?.() !== 0 || !findOnPath(["apt-get"])) miss("no Chromium found. Install the package `chromium`, or name one in MOMMYGPT_CHROMIUM.");
  console.log("browser tests: installing chromium with apt-get");
  const apt = (...args) => spawnSync("apt-get", args, { stdio: "inherit", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } }).status === 0;
  if (!apt("install", "-y", "--no-install-recommends", "chromium") && !(apt("update") && apt("install", "-y", "--no-install-recommends", "chromium"))) miss("apt-get could not install chromium.");
  return findOnPath(BROWSERS) ?? miss("apt-get installed chromium, but it is not on the PATH.");
}

function fetchLibrary() {
  if (existsSync(path.join(HERE, "node_modules/playwright-core/package.json"))) return;
  console.log("browser tests: npm ci");
  const npm = spawnSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: HERE, stdio: "inherit", env: { ...process.env, PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD: "1" } });
  if (npm.status !== 0) miss("npm could not fetch playwright-core.");
}

function findBinary() {
  const named = process.argv[2] ?? process.env.MOMMYGPT_BIN;
  if (named) return path.resolve(named);
  execFileSync("cargo", ["build"], { cwd: ROOT, stdio: "inherit" });
  return path.join(ROOT, "target/debug/mommygpt");
}

if (Number(process.versions.node.split(".")[0]) < 20) miss(`Node ${process.versions.node} is too old; version 20 or newer is needed.`);
const browser = findBrowser();
fetchLibrary();
const env = { ...process.env, MOMMYGPT_BIN: findBinary(), MOMMYGPT_CHROMIUM: browser };
const only = process.argv.slice(3);
const tests = readdirSync(HERE).filter((name) => name.endsWith(".test.mjs") && (only.length === 0 || only.some((part) => name.includes(part)))).sort();
// One file after the other: they share the machine's cores with a model.
const run = spawnSync(process.execPath, ["--test", "--test-concurrency=1", "--test-reporter=spec", ...tests], { cwd: HERE, stdio: "inherit", env });
process.exit(run.status ?? 1);
