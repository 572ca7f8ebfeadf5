// Keyboard shortcuts: / to search, j and k to move through rows, ? for help.
"use strict";

function step(by) {
  const links = [...document.querySelectorAll("tbody a.row")];
  if (!links.length) return;
  const now = links.indexOf(document.activeElement);
  const next = now < 0 && by < 0 ? links.length - 1 : Math.min(links.length - 1, Math.max(0, now + by));
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

const KEYS = {
  "/": () => document.querySelector("input[type=search]").focus(),
  "?": () => document.querySelector("#help").showModal(),
  j: () => step(1),
  k: () => step(-1),
};

// A choice that is a filter takes effect at once.
const filter = document.querySelector("select[data-submits]");
if (filter) filter.nextElementSibling.hidden = true;
filter?.addEventListener("change", () => filter.form.submit());

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, dialog[open]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
