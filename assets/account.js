// Settings about the account: password, devices, API keys, taking one's data out and in.

import { api } from "./api.js";
import { loadChats } from "./chats.js";
import { copyButton, field, h, icon, replace, shortTime } from "./dom.js";
import { confirmDialog, toast, toastError, whileBusy } from "./overlays.js";
import { tell } from "./state.js";

const MIN_PASSWORD_CHARS = 8;

export function accountSection(root) {
  const current = h("input", { type: "password", autocomplete: "current-password" });
  const next = h("input", { type: "password", autocomplete: "new-password" });
  const message = h("p", { class: "form-message", role: "alert" });
  const submit = h("button", { type: "submit", class: "button primary", text: "Change the password" });
  const form = h("form", { novalidate: true },
    field("Your password now", current), field("New password", next, `At least ${MIN_PASSWORD_CHARS} characters.`), message, h("div", { class: "buttons start" }, submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    message.textContent = "";
    if ([...next.value].length < MIN_PASSWORD_CHARS) {
      message.textContent = `The new password needs at least ${MIN_PASSWORD_CHARS} characters.`;
      next.focus();
      return;
    }
    try {
      await whileBusy(submit, () => api.changePassword({ current_password: current.value, new_password: next.value }));
      form.reset();
      toast("The password is changed. Your other devices are signed out.");
    } catch (error) {
      message.textContent = error.code === "invalid_credentials" ? "This is not your password now." : error.message;
      current.focus();
    }
  });
  replace(root,
    h("p", { text: "Your other devices are signed out when the password changes. The recovery code stays the same." }),
    form);
}

export async function devicesSection(root) {
  const sessions = await api.sessions();
  replace(root, h("p", { text: "Where you are signed in. If you do not know one of these, sign it out and change your password." }),
    h("ul", { class: "rows" }, sessions.map((session) => h("li", { class: "row" },
      h("div", { class: "row-text" }, h("span", { class: "row-title", text: session.label || "A device" }), session.current && h("span", { class: "badge", text: "this one" }),
        h("span", { class: "hint", text: `since ${shortTime(session.created_at)}${session.last_seen_at ? `, last seen ${shortTime(session.last_seen_at)}` : ""}` })),
      !session.current && actionButton("Sign out", async () => {
        await api.endSession(session.id);
        await devicesSection(root);
      })))),
    h("div", { class: "buttons start" }, h("button", { type: "button", class: "button", onclick: () => {
      root.closest("dialog")?.close();
      tell("sign-out");
    } }, icon("exit"), "Sign out here")));
}

/** A small button that cannot be pressed twice and says what went wrong. */
export function actionButton(label, run, props = {}) {
  const button = h("button", { type: "button", class: "button small", ...props, onclick: () => whileBusy(button, run).catch(toastError) }, label);
  return button;
}

export async function keysSection(root, _close, made = null) {
  const keys = await api.keys();
  const name = h("input", { type: "text", maxlength: 100, placeholder: "kitchen tablet" });
  const submit = h("button", { type: "submit", class: "button primary", text: "Make a key" });
  const form = h("form", { class: "inline-form" }, field("Name of a new key", name), submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (name.value.trim() === "") return name.focus();
    whileBusy(submit, async () => keysSection(root, null, await api.createKey(name.value.trim()))).catch(toastError);
  });
  replace(root,
    h("p", {}, "Programs that speak OpenAI's API use such a key with the address ", h("code", { text: `${location.origin}/v1` }), ". A key opens no chats."),
    made && h("div", { class: "secret" }, h("p", {}, h("strong", { text: made.name }), " is shown only now:"),
      h("p", { class: "secret-text", text: made.key }), copyButton("Copy the key", () => made.key, { caption: "Copy", class: "captioned button" })),
    h("ul", { class: "rows" }, keys.map((key) => h("li", { class: "row" },
      h("div", { class: "row-text" }, h("span", { class: "row-title", text: key.name }),
        h("span", { class: "hint", text: `made ${shortTime(key.created_at)}, ${key.last_used_at ? `last used ${shortTime(key.last_used_at)}` : "never used"}` })),
      actionButton("Delete", async () => {
        if (!(await confirmDialog(`Delete the key “${key.name}”?`, "Programs that use it will be refused at once.", "Delete the key"))) return;
        await api.deleteKey(key.id);
        await keysSection(root);
      })))),
    form);
}

export function dataSection(root) {
  const file = h("input", { type: "file", accept: "application/json,.json", class: "sr-only", tabindex: "-1", "aria-hidden": "true" });
  const status = h("p", { class: "hint", role: "status" });
  const choose = h("button", { type: "button", class: "button", text: "Choose a file…", onclick: () => file.click() });
  file.addEventListener("change", () => {
    const chosen = file.files[0];
    if (!chosen) return;
    status.textContent = "Reading…";
    whileBusy(choose, async () => {
      const answer = await api.importAll(await chosen.text());
      const counts = Object.entries(answer ?? {}).filter(([, value]) => typeof value === "number").map(([name, value]) => `${value} ${name.replace(/^n_/, "")}`);
      status.textContent = counts.length > 0 ? `Done: ${counts.join(", ")}.` : "Done.";
      await loadChats();
    }).catch((error) => {
      status.textContent = `Nothing was changed. ${error.message}`;
    }).finally(() => {
      file.value = "";
    });
  });
  replace(root,
    h("h4", { text: "Take it with you" }),
    h("p", { text: "One file with your profile, chats, messages and memories. It is not encrypted, so keep it where you would keep a diary." }),
    h("p", {}, h("a", { class: "button", href: "/api/export", download: "mommygpt-export.json" }, "Download everything")),
    h("h4", { text: "Bring chats in" }),
    h("p", { text: "From MommyGPT, Open WebUI or llama.cpp. What is here already stays as it is." }),
    h("p", {}, choose, file), status);
}
