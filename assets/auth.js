// Signing up, signing in, and getting back in with the recovery code.

import { ApiError, api } from "./api.js";
import { $, copyButton, field, h, icon, replace } from "./dom.js";
import { openDialog, whileBusy } from "./overlays.js";

const MIN_PASSWORD_CHARS = 8;
/** Remembers only that somebody signed in on this device, so that it greets with "sign in" the next time. */
const SEEN = "mommygpt.seen";

const WORDS = {
  signup: { title: "Come in", lead: "Make an account on this machine. Nothing you write ever leaves it.", action: "Make my account" },
  signin: { title: "Welcome back", lead: "The kettle is on.", action: "Sign in" },
  recover: { title: "Get back in", lead: null, action: "Set the new password" },
};

/** Shows the door. `done(user)` is called once somebody is in; `notice` says why they are here. */
export function showAuth(done, notice = "") {
  const invite = new URLSearchParams(location.hash.slice(1)).get("invite");
  const mode = invite ? "signup" : localStorage.getItem(SEEN) ? "signin" : "signup";
  showMode(mode, done, { notice, invite });
}

function showMode(mode, done, { notice = "", invite = null, email = "" } = {}) {
  const root = $("auth");
  const words = WORDS[mode];
  const inputs = makeInputs(mode, email, invite);
  const message = h("p", { class: "form-message", role: "alert", text: notice });
  const submit = h("button", { class: "button primary wide", type: "submit", text: words.action });
  const extra = h("div", { class: "extra-fields" });
  if (invite) extra.append(inputs.invite.row);
  const form = h("form", { class: "auth-form", novalidate: true },
    inputs.email.row, mode === "signup" && inputs.full_name.row, mode === "recover" && inputs.recovery_code.row, inputs.password.row, extra, message, submit);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const problem = complaint(mode, inputs);
    if (problem) {
      message.textContent = problem.text;
      problem.input.focus();
      return;
    }
    message.textContent = "";
    whileBusy(submit, () => enter(mode, inputs, done)).catch((error) => {
      message.textContent = sayError(error, mode);
      revealWhatIsMissing(error, inputs, extra);
    });
  });
  const go = (next, text) => h("button", { type: "button", class: "link-button", text, onclick: () => showMode(next, done, { email: inputs.email.input.value, invite }) });
  replace(root,
    h("div", { class: "auth-card" },
      h("div", { class: "auth-brand" }, h("span", { class: "brand-mark large", "aria-hidden": "true" }), h("span", { text: "MommyGPT" })),
      h("h1", { text: words.title }),
      words.lead && h("p", { class: "lead", text: words.lead }),
      mode === "recover" && recoveryWarning(),
      form,
      h("div", { class: "auth-switch" },
        mode !== "signin" && go("signin", "I have an account"),
        mode !== "signup" && go("signup", "I am new here"),
        mode !== "recover" && go("recover", "I forgot my password"))),
    h("p", { class: "auth-foot" }, icon("lock"), "Runs on this machine. Your words are stored encrypted, for you alone."));
  root.hidden = false;
  (inputs.email.input.value ? inputs.password.input : inputs.email.input).focus();
}

function makeInputs(mode, email, invite) {
  const make = (label, props, hint) => {
    const input = h("input", props);
    return { input, row: field(label, input, hint) };
  };
  const fresh = mode !== "signin";
  return {
    email: make("E-mail", { type: "email", name: "email", autocomplete: "username", value: email, inputmode: "email", autocapitalize: "none", spellcheck: "false" }, mode === "signup" ? "Only a name to sign in with; no mail is ever sent." : null),
    full_name: make("What shall I call you?", { type: "text", name: "full_name", autocomplete: "given-name", maxlength: 100 }),
    password: make(fresh ? (mode === "recover" ? "New password" : "Password") : "Password", { type: "password", name: "password", autocomplete: fresh ? "new-password" : "current-password" }, fresh ? `At least ${MIN_PASSWORD_CHARS} characters. A short sentence is good.` : null),
    recovery_code: make("Recovery code", { type: "text", name: "recovery_code", autocomplete: "off", autocapitalize: "characters", spellcheck: "false" }, "The one you printed or wrote down when you made the account."),
    invite: make("Invitation", { type: "text", name: "invite", autocomplete: "off", value: invite ?? "" }, "Somebody at home can make one for you under Settings, People."),
    setup_code: make("Setup code", { type: "text", name: "setup_code", autocomplete: "off" }, "The first account of this house needs the code that the server printed on its console."),
  };
}

function recoveryWarning() {
  return h("div", { class: "warning" },
    h("p", {}, h("strong", { text: "Before you go on: " }), "your chats are encrypted with your password. The recovery code opens them, too. If both are lost, the old chats are lost for good, and nobody can bring them back, not even the person who runs this machine."),
    h("p", { text: "Without the code, that person can give you a new password, and you begin with an empty page." }));
}

function complaint(mode, inputs) {
  const { email, password, recovery_code: code } = inputs;
  if (!email.input.value.includes("@")) return { input: email.input, text: "Please type an e-mail address, such as ada@example.org." };
  if (mode === "recover" && code.input.value.trim() === "") return { input: code.input, text: "Please type the recovery code." };
  if (mode !== "signin" && [...password.input.value].length < MIN_PASSWORD_CHARS) return { input: password.input, text: `The password needs at least ${MIN_PASSWORD_CHARS} characters.` };
  if (password.input.value === "") return { input: password.input, text: "Please type your password." };
  return null;
}

async function enter(mode, inputs, done) {
  const email = inputs.email.input.value.trim();
  const password = inputs.password.input.value;
  const answer = await {
    signup: () => {
      const body = { email, password };
      for (const name of ["full_name", "invite", "setup_code"]) {
        const value = inputs[name].input.value.trim();
        if (value !== "") body[name] = value;
      }
      return api.signUp(body);
    },
    signin: () => api.signIn({ email, password }),
    recover: () => api.recover({ email, recovery_code: inputs.recovery_code.input.value.trim(), new_password: password }),
  }[mode]();
  inputs.password.input.value = "";
  localStorage.setItem(SEEN, "1");
  if (location.hash.includes("invite=")) history.replaceState(null, "", location.pathname);
  // The session itself is a cookie that scripts cannot read; `session_token` in the answer is for programs.
  if (answer.recovery_code) await showRecoveryCode(answer.recovery_code, email, mode === "recover");
  done(answer.user);
}

function sayError(error, mode) {
  if (!(error instanceof ApiError)) return "Something went wrong in the page. Please try again.";
  const known = {
    invalid_credentials: mode === "recover" ? "This address and recovery code do not belong together." : "This address and password do not belong together.",
    rate_limited: "Too many tries.",
  }[error.code];
  const wait = error.retryAfterS ? ` Please wait ${error.retryAfterS} s.` : "";
  return `${known ?? error.message}${wait}`;
}

/** The server says by an error what else it needs; only then is it asked for. */
function revealWhatIsMissing(error, inputs, extra) {
  const name = /setup/.test(error.code ?? "") ? "setup_code" : /invite/.test(error.code ?? "") ? "invite" : null;
  if (!name) return;
  if (!extra.contains(inputs[name].row)) extra.append(inputs[name].row);
  inputs[name].input.focus();
}

/** Shows the recovery code, once. Resolves when the person says that they have kept it. */
export function showRecoveryCode(code, email, isNew) {
  return new Promise((resolve) => {
    const kept = h("input", { type: "checkbox", id: "code-kept" });
    const done = h("button", { type: "button", class: "button primary", text: "Done", disabled: true });
    kept.addEventListener("change", () => {
      done.disabled = !kept.checked;
    });
    const { close } = openDialog("Keep this code somewhere safe", [
      h("p", { text: isNew ? "Your old code no longer works. This is the new one, and it is shown only now." : "If you ever forget your password, this code opens your chats. It is shown only now." }),
      h("p", { class: "recovery-code", id: "recovery-code", text: code }),
      h("p", { class: "print-only", text: `MommyGPT recovery code for ${email}, ${new Date().toLocaleDateString()}` }),
      h("p", { class: "hint", text: "Lose both the password and this code, and the chats are gone for good." }),
      h("div", { class: "buttons start no-print" },
        copyButton("Copy the recovery code", () => code, { caption: "Copy", class: "captioned button" }),
        h("button", { type: "button", class: "button captioned", onclick: () => window.print() }, icon("print"), "Print")),
      h("label", { class: "check no-print", for: "code-kept" }, kept, "I have written it down or printed it"),
      h("div", { class: "buttons no-print" }, done),
    ], { className: "small printable", firm: true, onclose: resolve });
    done.addEventListener("click", close);
    kept.focus();
  });
}
