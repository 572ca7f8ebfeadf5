// Keyboard shortcuts: / to search, j and k to move through rows, x to select one, ? for help.
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
  x: () => document.activeElement.closest("tr")?.querySelector("td.box input")?.click(),
};

// On a narrow screen the navigation scrolls sideways.
document.querySelector("header nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A choice that is a filter takes effect at once.
const filter = document.querySelector("select[data-submits]");
if (filter) filter.nextElementSibling.hidden = true;
filter?.addEventListener("change", () => filter.form.submit());

// One box selects all rows of the page; the buttons show how many are selected.
function showSelected() {
  const boxes = [...document.querySelectorAll("input[form=selected]")];
  const count = boxes.filter((box) => box.checked).length;
  const all = document.querySelector("[data-selects-all]");
  if (all) {
    all.closest("label").hidden = false;
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  }
  for (const button of document.querySelectorAll("#selected button:not([name=all])")) {
    button.dataset.label ??= button.textContent;
    button.textContent = count ? button.dataset.label.replace("selected", `${count} selected`) : button.dataset.label;
  }
}

document.addEventListener("change", (event) => {
  if ("selectsAll" in event.target.dataset) {
    document.querySelectorAll("input[form=selected]").forEach((box) => (box.checked = event.target.checked));
  }
  showSelected();
});
addEventListener("pageshow", showSelected);
addEventListener("replaced", showSelected);

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, textarea, select, dialog[open]");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
