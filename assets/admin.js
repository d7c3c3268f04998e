// For the person who runs the house: accounts, invitations, health. Never a word of a chat.

import { api } from "./api.js";
import { actionButton } from "./account.js";
import { avatar, copyButton, field, h, iconButton, replace, shortTime } from "./dom.js";
import { confirmDialog, openDialog, openMenu, toast, toastError, whileBusy } from "./overlays.js";
import { state } from "./state.js";

const ROLES = [["member", "Member"], ["child", "Child"], ["admin", "Admin"]];
const roleSelect = (chosen, props = {}) => {
  const select = h("select", props, ROLES.map(([value, text]) => h("option", { value, text })));
  select.value = chosen;
  return select;
};

/** Who answers a child: chosen here, since the child cannot. */
function personaSelect(user) {
  const select = h("select", { "aria-label": `Who answers ${user.email}` }, [["mom", "Mom"], ["dad", "Dad"], ["parent", "A parent"]].map(([value, text]) => h("option", { value, text })));
  select.value = user.persona;
  return select;
}

export async function peopleSection(root) {
  const users = await api.adminUsers();
  replace(root,
    h("p", { text: "Everybody with an account here. You see who they are; you cannot see what they write." }),
    h("ul", { class: "rows" }, users.map((user) => personRow(user, () => peopleSection(root)))),
    h("div", { class: "buttons start" }, h("button", { type: "button", class: "button primary", text: "Add a person…", onclick: () => addPerson(() => peopleSection(root)) })));
}

function personRow(user, again) {
  const self = user.id === state.me.id;
  const act = (run, said) => async () => {
    try {
      await run();
      if (said) toast(said);
      await again();
    } catch (error) {
      toastError(error);
    }
  };
  const more = iconButton("more", `More for ${user.email}`, () => openMenu(more, user.email, [
    { icon: "lock", label: user.disabled ? "Let in again" : "Keep out", run: act(() => api.adminUpdateUser(user.id, { disabled: !user.disabled }), user.disabled ? "May sign in again." : "Signed out everywhere, and may not sign in.") },
    { icon: "key", label: "Set a new password", run: () => resetPassword(user, again) },
    { icon: "trash", label: "Delete", danger: true, run: () => removePerson(user, again) },
  ]), { "aria-haspopup": "menu" });
  const role = roleSelect(user.role, { "aria-label": `Role of ${user.email}`, disabled: self });
  role.addEventListener("change", () => act(() => api.adminUpdateUser(user.id, { role: role.value }), "Saved.")());
  const persona = user.role === "child" && personaSelect(user);
  if (persona) persona.addEventListener("change", () => act(() => api.adminUpdateUser(user.id, { persona: persona.value }), "Saved.")());
  return h("li", { class: user.disabled ? "row off" : "row" }, avatar(user),
    h("div", { class: "row-text" }, h("span", { class: "row-title", text: user.full_name || user.email }), self && h("span", { class: "badge", text: "you" }), user.disabled && h("span", { class: "badge", text: "kept out" }),
      h("span", { class: "hint", text: `${user.full_name ? `${user.email} · ` : ""}since ${shortTime(user.created_at)}` })),
    persona, role, !self && more);
}

function addPerson(again) {
  const name = h("input", { type: "text", maxlength: 100 });
  const email = h("input", { type: "email", required: true, autocomplete: "off" });
  const password = h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  const role = roleSelect("member");
  formDialog("Add a person", "Add", [field("Name", name), field("E-mail", email), field("First password", password, "Tell it to them; they can change it under Settings, Password."), field("Role", role, "A child's account has a fixed parent and gentler limits.")], async () => {
    const body = { email: email.value.trim(), password: password.value, role: role.value };
    if (name.value.trim() !== "") body.full_name = name.value.trim();
    const made = await api.adminCreateUser(body);
    await again();
    if (made?.recovery_code) showOnce(`Recovery code for ${body.email}`, "Give it to them on paper. It is shown only now.", made.recovery_code);
  });
}

function resetPassword(user, again) {
  const password = h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
  formDialog("Set a new password", "Set it", [
    h("p", { class: "warning" }, h("strong", { text: "This loses the old chats. " }), `What ${user.full_name || user.email} wrote is encrypted with the old password. If they have their recovery code, let them use “I forgot my password” instead: then nothing is lost.`),
    field("New password", password),
  ], async () => {
    const made = await api.adminUpdateUser(user.id, { password: password.value });
    await again();
    if (made?.recovery_code) showOnce(`New recovery code for ${user.email}`, "Give it to them on paper. It is shown only now.", made.recovery_code);
    else toast("The new password is set.");
  }, true);
}

async function removePerson(user, again) {
  const name = user.full_name || user.email;
  if (!(await confirmDialog(`Delete ${name}?`, "The account, its chats and everything in them are gone for good.", "Delete the account"))) return;
  try {
    await api.adminDeleteUser(user.id);
    toast(`${name} is deleted.`);
    await again();
  } catch (error) {
    toastError(error);
  }
}

function formDialog(title, action, fields, save, danger = false) {
  const message = h("p", { class: "form-message", role: "alert" });
  const submit = h("button", { type: "submit", class: danger ? "button danger" : "button primary", text: action });
  const form = h("form", { novalidate: true }, fields, message, h("div", { class: "buttons" }, submit));
  const { close } = openDialog(title, [form], { className: "small" });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(submit, save).then(close).catch((error) => {
      message.textContent = error.message;
    });
  });
  form.querySelector("input")?.focus();
}

/** Something that the server says only once. */
function showOnce(title, text, secret) {
  openDialog(title, [h("p", { text }), h("p", { class: "secret-text", text: secret }), copyButton("Copy", () => secret, { caption: "Copy", class: "captioned button" })], { className: "small" });
}

export async function invitesSection(root, _close, made = null) {
  const invites = await api.adminInvites();
  const role = roleSelect("member");
  const submit = h("button", { type: "submit", class: "button primary", text: "Make an invitation" });
  const form = h("form", { class: "inline-form" }, field("For a", role), submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(submit, async () => invitesSection(root, null, await api.adminCreateInvite({ role: role.value }))).catch(toastError);
  });
  const code = made?.invite;
  // Behind "#", the code reaches no log: browsers do not send that part of an address.
  const link = `${location.origin}/#invite=${encodeURIComponent(code ?? "")}`;
  replace(root,
    h("p", { text: "An invitation lets one person make an account. Send them the link; it works once." }),
    code && h("div", { class: "secret" }, h("p", { text: "This link is shown only now:" }), h("p", { class: "secret-text", text: link }), copyButton("Copy the link", () => link, { caption: "Copy", class: "captioned button" })),
    h("ul", { class: "rows" }, invites.map((invite) => h("li", { class: "row" },
      h("div", { class: "row-text" }, h("span", { class: "row-title", text: `For a ${invite.role}` }), h("span", { class: "hint", text: `made ${shortTime(invite.created_at)}, works until ${shortTime(invite.expires_at)}` })),
      actionButton("Withdraw", async () => {
        await api.adminDeleteInvite(invite.id);
        await invitesSection(root);
      })))),
    form);
}

/** Which model answers; nothing where there is no choice. */
function modelForm(models, again) {
  if (models.length < 2) return null;
  const select = h("select", {}, models.map(({ name, size_bytes: size }) => h("option", { value: name, text: `${name} (${bytes(size)})` })));
  select.value = models.find((model) => model.current)?.name ?? "";
  const submit = h("button", { type: "submit", class: "button", text: "Let it answer" });
  const form = h("form", { class: "inline-form" }, field("Model", select, "Replies that are being written are finished first. It stays until the server starts anew."), submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    whileBusy(submit, async () => {
      const { note } = await api.adminSwitchModel(select.value);
      toast(`${select.value} answers now${note ? `; ${note}` : ""}.`);
      await again();
    }).catch(toastError);
  });
  return form;
}

export async function healthSection(root) {
  const [status, models] = await Promise.all([api.adminStatus(), api.adminModels().catch(() => [])]);
  replace(root, modelForm(models, () => healthSection(root)), h("p", { text: "How the house is. The numbers behind it are at /metrics." }), facts(status),
    h("div", { class: "buttons start" }, actionButton("Look again", () => healthSection(root))));
}

/** Shows whatever the server tells, whole groups under their names. */
function facts(values, depth = 0) {
  const rows = Object.entries(values).filter(([, value]) => value !== null && typeof value !== "object");
  const groups = Object.entries(values).filter(([, value]) => value !== null && typeof value === "object" && !Array.isArray(value));
  return [
    rows.length > 0 && h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", {}, h("dt", { text: words(name) }), h("dd", { text: amount(name, value) })))),
    ...groups.map(([name, value]) => h("div", { class: "fact-group" }, h("h4", { text: words(name) }), depth < 3 && facts(value, depth + 1))),
  ];
}

const NAMES = { n_ctx: "Context, in tokens", n_params: "Parameters", signup: "Sign-up" };

const words = (name) => {
  if (NAMES[name]) return NAMES[name];
  const text = name.replace(/^n_/, "").replace(/_(bytes|ms|s)$/, "").replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
};

function amount(name, value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return /_at$/.test(name) ? shortTime(value) : String(value);
  if (name.endsWith("_bytes")) return bytes(value);
  if (name.endsWith("_ms")) return `${value.toLocaleString([], { maximumFractionDigits: 1 })} ms`;
  if (name.endsWith("_s")) return value >= 3600 ? `${(value / 3600).toFixed(1)} h` : value >= 60 ? `${(value / 60).toFixed(0)} min` : `${value.toLocaleString([], { maximumFractionDigits: 1 })} s`;
  return value.toLocaleString([], { maximumFractionDigits: 2 });
}

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const i = n < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(n) / 10));
  return `${(n / 1024 ** i).toFixed(i === 0 ? 0 : 1)} ${units[i]}`;
}
