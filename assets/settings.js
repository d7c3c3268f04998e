// The settings dialog: a row of sections, each built when it is opened.

import { api } from "./api.js";
import { accountSection, dataSection, devicesSection, keysSection } from "./account.js";
import { healthSection, invitesSection, peopleSection } from "./admin.js";
import { AVATAR_COLORS, avatar, field, h, icon, replace } from "./dom.js";
import { memoriesSection } from "./memories.js";
import { openDialog, toast, toastError } from "./overlays.js";
import { KEYS, keyNames } from "./keyboard.js";
import { state, tell } from "./state.js";
import { THEMES, setTheme, themeName } from "./look.js";

/** The server takes avatars of at most 64 KiB; 128 pixels are sharp wherever one is shown. */
const AVATAR_PX = 128;
const MAX_AVATAR_CHARS = 64 << 10;

const SECTIONS = [
  { id: "you", icon: "person", label: "You", build: youSection },
  { id: "memories", icon: "book", label: "Memories", build: memoriesSection },
  { id: "password", icon: "lock", label: "Password", build: accountSection },
  { id: "devices", icon: "home", label: "Devices", build: devicesSection },
  { id: "keys", icon: "key", label: "API keys", build: keysSection, notFor: "child" },
  { id: "data", icon: "box", label: "Your data", build: dataSection },
  { id: "keyboard", icon: "keyboard", label: "Keyboard", build: keyboardSection },
  { id: "people", icon: "people", label: "People", build: peopleSection, only: "admin" },
  { id: "invites", icon: "heart", label: "Invitations", build: invitesSection, only: "admin" },
  { id: "health", icon: "info", label: "Health", build: healthSection, only: "admin" },
];

let open = null;

export function openSettings(first = "you") {
  if (open) return open.show(first);
  const role = state.me.role;
  const sections = SECTIONS.filter((section) => (!section.only || section.only === role) && section.notFor !== role);
  const panel = h("div", { class: "settings-panel", role: "tabpanel", tabindex: "0" });
  const tabs = h("div", { class: "settings-tabs", role: "tablist", "aria-label": "Settings", "aria-orientation": "vertical" });
  const show = async (id) => {
    const section = sections.find((other) => other.id === id) ?? sections[0];
    for (const tab of tabs.querySelectorAll("[role=tab]")) {
      const chosen = tab.dataset.section === section.id;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
    }
    panel.setAttribute("aria-label", section.label);
    const content = h("div", { class: "section" });
    replace(panel, h("h3", { text: section.label }), content);
    panel.scrollTop = 0;
    try {
      await section.build(content, close);
    } catch (error) {
      replace(content, h("p", { class: "form-message", text: error.message }));
    }
  };
  for (const section of sections) {
    if (section.only && !tabs.querySelector(".tabs-house")) tabs.append(h("p", { class: "tabs-house", text: "The house", role: "presentation" }));
    tabs.append(h("button", { type: "button", role: "tab", class: "tab", "data-section": section.id, onclick: () => show(section.id) }, icon(section.icon), section.label));
  }
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...tabs.querySelectorAll("[role=tab]")];
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    next.focus();
    next.click();
  });
  tabs.append(h("button", { type: "button", class: "tab leave", onclick: () => {
    close();
    tell("sign-out");
  } }, icon("exit"), "Sign out"));
  const { close } = openDialog("Settings", [h("div", { class: "settings" }, tabs, panel)], { className: "wide", onclose: () => (open = null) });
  open = { show };
  show(first);
  tabs.querySelector("[aria-selected=true]").focus();
}

/** Sends a change of the profile; the page shows what the server made of it. */
async function change(patch, said = "Saved.") {
  try {
    state.me = await api.updateMe(patch);
    tell("me");
    toast(said);
    return true;
  } catch (error) {
    toastError(error);
    return false;
  }
}

function youSection(root) {
  const name = h("input", { type: "text", value: state.me.full_name ?? "", maxlength: 100, autocomplete: "given-name" });
  name.addEventListener("change", () => change({ full_name: name.value.trim() }));
  replace(root,
    h("div", { class: "you-head" }, avatar(state.me, "large"), h("div", {}, h("p", { class: "you-name", text: state.me.full_name || state.me.email }), h("p", { class: "hint", text: `${state.me.email} · ${state.me.role}` }))),
    field("What shall I call you?", name),
    avatarField(root),
    state.me.role !== "child" && choice("Who answers you", "persona", [["mom", "Mom"], ["dad", "Dad"], ["parent", "A parent"]], state.me.persona, (persona) => change({ persona })),
    choice("Light", "theme", THEMES, themeName(), setTheme));
}

/** A set of radio buttons that look like one control. */
function choice(label, name, options, chosen, take) {
  return h("fieldset", { class: "choice" }, h("legend", { text: label }),
    h("div", { class: "segments" }, options.map(([value, text]) => {
      const input = h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => take(value) });
      return h("label", {}, input, h("span", { text }));
    })));
}

function avatarField(root) {
  const again = () => youSection(root);
  const swatches = AVATAR_COLORS.map((color, i) => {
    const button = h("button", { type: "button", class: "swatch", "aria-label": `Colour ${i + 1}`, "aria-pressed": String(state.me.avatar_url === `color:${color}`), onclick: async () => (await change({ avatar_url: `color:${color}` })) && again() });
    button.style.backgroundColor = color;
    return button;
  });
  const file = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp,image/gif", class: "sr-only", id: "avatar-file", tabindex: "-1", "aria-hidden": "true" });
  file.addEventListener("change", async () => {
    if (!file.files[0]) return;
    try {
      if (await change({ avatar_url: await smallPicture(file.files[0]) })) again();
    } catch (error) {
      toast(error.message, { error: true });
    }
  });
  return h("fieldset", { class: "choice" }, h("legend", { text: "Your picture" }),
    h("div", { class: "swatches" }, swatches, file, h("button", { type: "button", class: "button", text: "Choose a picture…", onclick: () => file.click() })));
}

/** Cuts the middle square out of a picture and makes it small, here; the original never leaves the device. */
async function smallPicture(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error("This file is not a picture that the browser can read. PNG, JPEG, WebP and GIF work.");
  });
  const canvas = h("canvas", { width: AVATAR_PX, height: AVATAR_PX });
  const side = Math.min(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, AVATAR_PX, AVATAR_PX);
  for (const quality of [0.9, 0.7, 0.5]) {
    const url = canvas.toDataURL("image/jpeg", quality);
    if (url.length <= MAX_AVATAR_CHARS) return url;
  }
  throw new Error("This picture does not get small enough. Please take another.");
}

function keyboardSection(root) {
  replace(root, h("dl", { class: "keys" }, KEYS.map(({ keys, does }) => h("div", {}, h("dt", {}, keyNames(keys).map((key) => h("kbd", { text: key }))), h("dd", { text: does })))));
}
