// Light, dark, or as the device says.

import { $, icon, replace } from "./dom.js";

export const THEMES = [["auto", "As the device"], ["light", "Light"], ["dark", "Dark"]];
const ICON = { auto: "auto", light: "sun", dark: "moon" };
const KEY = "mommygpt.theme"; // theme.js reads it before the first paint

export const themeName = () => document.documentElement.dataset.theme ?? "auto";

export function setTheme(name) {
  if (name === "auto") {
    localStorage.removeItem(KEY);
    delete document.documentElement.dataset.theme;
  } else {
    localStorage.setItem(KEY, name);
    document.documentElement.dataset.theme = name;
  }
  showTheme();
}

function showTheme() {
  const button = $("toggle-theme");
  const label = THEMES.find(([name]) => name === themeName())[1].toLowerCase();
  replace(button, icon(ICON[themeName()]));
  button.setAttribute("aria-label", `Colours: ${label}. Change`);
  button.title = `Colours: ${label}`;
}

export function setUpLook() {
  $("toggle-theme").addEventListener("click", () => {
    const names = THEMES.map(([name]) => name);
    setTheme(names[(names.indexOf(themeName()) + 1) % names.length]);
  });
  showTheme();
}
