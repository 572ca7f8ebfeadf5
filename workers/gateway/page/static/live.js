// Keeps the page up to date: after each change, fetches it again and replaces the parts that differ.
"use strict";

const PARTS = ["#summary", "#main"];
let isFetching = false;
let isStale = false;

const main = document.querySelector("#main");

// Does not replace what is in use: a song that plays, selected text, an open section, a form being filled in.
function isInUse() {
  const isPlaying = [...document.querySelectorAll("audio")].some((audio) => !audio.paused);
  // A checkbox without a value has the value "on" and no default value.
  const isChanged = (input) =>
    input.type === "checkbox" ? input.checked !== input.defaultChecked : input.value !== input.defaultValue;
  const isFilled = [...main.querySelectorAll("input")].some(isChanged);
  const isOpen = document.activeElement.closest("#main form") || main.querySelector("details[open]");
  return document.hidden || isPlaying || isFilled || isOpen || String(getSelection()) !== "";
}

function replace(part, fresh) {
  const current = document.querySelector(part);
  const updated = fresh.querySelector(part);
  if (!current || !updated) return;
  const fold = updated.querySelector("#summary-fold");
  if (fold) fold.open = document.querySelector("#summary-fold").open;
  if (current.innerHTML === updated.innerHTML) return;
  const focused = current.contains(document.activeElement) ? document.activeElement : null;
  current.innerHTML = updated.innerHTML;
  const link = focused?.getAttribute("href");
  if (link) current.querySelector(`a[href="${CSS.escape(link)}"]`)?.focus();
  if (focused?.closest("#summary-fold")) current.querySelector("#summary-fold summary").focus();
}

async function refresh() {
  if (isFetching || isInUse()) {
    isStale = true;
    return;
  }
  isFetching = true;
  isStale = false;
  try {
    const response = await fetch(location.href, { cache: "no-store" });
    if (response.redirected) return location.assign(response.url); // the session has ended
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!response.ok || isInUse()) return;
    // The Content-Security-Policy is fixed when the page loads: new songs need a new page.
    if (fresh.querySelector("#main")?.dataset.policy !== main.dataset.policy) return location.reload();
    showLocalTimes(fresh);
    PARTS.forEach((part) => replace(part, fresh));
    dispatchEvent(new Event("replaced"));
  } catch {
    isStale = true; // the gateway is unavailable; the stream reconnects when it is back
  } finally {
    isFetching = false;
  }
}

// Confirmation pages are not updated.
if (!("still" in main.dataset)) {
  const namespace = new URLSearchParams(location.search).get("namespace");
  const changes = new EventSource(namespace === null ? "/live" : `/live?${new URLSearchParams({ namespace })}`);
  changes.addEventListener("changed", refresh);
  changes.addEventListener("open", () => isStale && refresh());
  setInterval(() => isStale && refresh(), 2000);
}

// A form is sent once: a second click would repeat the change, and show its error instead of the result.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if ("sent" in event.target.dataset) event.preventDefault();
  event.target.dataset.sent = "";
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

// A search without results so far continues automatically.
const nextPage = document.querySelector("a[data-search-on]");
if (nextPage) location.replace(nextPage.href);
