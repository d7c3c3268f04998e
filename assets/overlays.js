// What lies over the page for a while: dialogs, menus, toasts.

import { $, h, icon, iconButton, replace } from "./dom.js";

/** How long a toast stays, in ms; one with an action stays as long as the action can be taken back. */
const TOAST_MS = 4500;
export const UNDO_MS = 6000;

/**
 * Opens a modal dialog. The browser keeps the focus inside, closes it on Esc and gives the focus back.
 * `onclose` runs however it was closed; `firm` dialogs close only by a button.
 */
export function openDialog(title, content, { className = "", onclose, firm = false } = {}) {
  const close = () => dialog.close();
  const heading = h("h2", { text: title, id: `dialog-${Math.random().toString(36).slice(2)}` });
  const dialog = h("dialog", { class: `dialog ${className}`.trim(), "aria-labelledby": heading.id },
    h("header", { class: "dialog-head" }, heading, !firm && iconButton("close", "Close", close)),
    h("div", { class: "dialog-body" }, content));
  dialog.addEventListener("close", () => {
    dialog.remove();
    onclose?.();
  });
  dialog.addEventListener("cancel", (event) => {
    if (firm) event.preventDefault();
  });
  dialog.addEventListener("keydown", (event) => {
    if (firm && event.key === "Escape") event.preventDefault();
  });
  dialog.addEventListener("pointerdown", (event) => {
    if (!firm && event.target === dialog) close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, close };
}

/** Asks before something that cannot be taken back. Resolves to true when confirmed. */
export function confirmDialog(title, text, action, { danger = true } = {}) {
  return new Promise((resolve) => {
    let answer = false;
    const yes = h("button", { type: "button", class: danger ? "button danger" : "button primary", text: action });
    const no = h("button", { type: "button", class: "button", text: "Cancel" });
    const { close } = openDialog(title, [h("p", { text }), h("div", { class: "buttons" }, no, yes)], { className: "small", onclose: () => resolve(answer) });
    no.addEventListener("click", close);
    yes.addEventListener("click", () => {
      answer = true;
      close();
    });
    no.focus();
  });
}

/** A short message at the bottom; with `action` `{label, run}` a button to take something back. */
export function toast(text, { action = null, ms = action ? UNDO_MS : TOAST_MS, error = false } = {}) {
  const element = h("div", { class: error ? "toast error" : "toast" }, h("span", { text }));
  const home = document.querySelector("dialog[open]");
  let timer = null;
  const dismiss = () => {
    clearTimeout(timer);
    element.remove();
  };
  if (action) {
    element.append(h("button", {
      type: "button", class: "toast-action", text: action.label, onclick: () => {
        dismiss();
        action.run();
      },
    }));
  }
  element.append(iconButton("close", "Dismiss", dismiss));
  // A modal dialog covers everything outside it, so what concerns it is said inside.
  let place = $("toasts");
  if (home) {
    place = home.querySelector(".toasts") ?? h("div", { class: "toasts", role: "status" });
    home.append(place);
  }
  place.append(element);
  while (place.children.length > 3) place.firstChild.remove();
  timer = setTimeout(dismiss, ms);
  return dismiss;
}

export const toastError = (error) => toast(error.message, { error: true, ms: 8000 });

let closeOpenMenu = null;

/** A menu under a button. `items`: `{icon, label, run, danger}`. Arrow keys move, Esc closes and returns to the button. */
export function openMenu(button, label, items) {
  const was = closeOpenMenu?.button;
  closeOpenMenu?.();
  if (was === button) return;
  const menu = h("div", { class: "menu", role: "menu", "aria-label": label });
  const close = (giveBack = true) => {
    closeOpenMenu = null;
    menu.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    window.removeEventListener("resize", close);
    if (giveBack && document.contains(button)) button.focus();
  };
  const outside = (event) => {
    if (!menu.contains(event.target) && !button.contains(event.target)) close(false);
  };
  replace(menu, items.map((item) => h("button", {
    type: "button", role: "menuitem", tabindex: "-1", class: item.danger ? "menu-item danger" : "menu-item", onclick: () => {
      close();
      item.run();
    },
  }, icon(item.icon), item.label)));
  menu.addEventListener("keydown", (event) => {
    const all = [...menu.children];
    const at = all.indexOf(document.activeElement);
    const next = { ArrowDown: all[(at + 1) % all.length], ArrowUp: all[(at - 1 + all.length) % all.length], Home: all[0], End: all.at(-1) }[event.key];
    if (next) {
      event.preventDefault();
      next.focus();
    } else if (event.key === "Escape" || event.key === "Tab") {
      event.preventDefault();
      event.stopPropagation();
      close();
    }
  });
  (button.closest("dialog") ?? document.body).append(menu);
  placeMenu(menu, button);
  button.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", outside, true);
  window.addEventListener("resize", close);
  menu.firstChild.focus();
  closeOpenMenu = close;
  closeOpenMenu.button = button;
}

function placeMenu(menu, button) {
  const edge = 8;
  const at = button.getBoundingClientRect();
  const left = Math.min(Math.max(edge, at.right - menu.offsetWidth), window.innerWidth - menu.offsetWidth - edge);
  const below = at.bottom + 4;
  const top = below + menu.offsetHeight > window.innerHeight - edge ? Math.max(edge, at.top - menu.offsetHeight - 4) : below;
  menu.style.left = `${left}px`;
  menu.style.top = `${top}px`;
}

/** Runs `work` while `button` cannot be pressed twice. */
export async function whileBusy(button, work) {
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    return await work();
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}
