// Keeps the page as things are: when something moves it is fetched again, and what has changed takes its place.
"use strict";

const PARTS = ["#summary", "#main"];
let isFetching = false;
let isStale = false;

const main = document.querySelector("#main");

// Nothing is taken away from under somebody's hands: a song that plays, text that is marked, what was opened or filled in.
function isInUse() {
  const plays = [...document.querySelectorAll("audio")].some((audio) => !audio.paused);
  const filled = [...main.querySelectorAll("input")].some((input) => input.value !== input.defaultValue);
  const held = document.activeElement.closest("#main form") || main.querySelector("details[open]");
  return document.hidden || plays || filled || held || String(getSelection()) !== "";
}

function put(part, fresh) {
  const now = document.querySelector(part);
  const then = fresh.querySelector(part);
  if (!now || !then || now.innerHTML === then.innerHTML) return;
  const focused = now.contains(document.activeElement) && document.activeElement.getAttribute("href");
  now.innerHTML = then.innerHTML;
  if (focused) now.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function refresh() {
  if (isFetching || isInUse()) {
    isStale = true;
    return;
  }
  isFetching = true;
  isStale = false;
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (answer.redirected) return location.assign(answer.url); // the login is over
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok || isInUse()) return;
    // What may be shown and played was said when the page was loaded: songs that have come since need a new one.
    if (fresh.querySelector("#main")?.dataset.policy !== main.dataset.policy) return location.reload();
    PARTS.forEach((part) => put(part, fresh));
  } catch {
    isStale = true; // the gateway is away; its stream says when it is back
  } finally {
    isFetching = false;
  }
}

// A question stays as it was asked.
if (!("still" in main.dataset)) {
  const moves = new EventSource("/live");
  moves.addEventListener("moved", refresh);
  moves.addEventListener("open", () => isStale && refresh());
  setInterval(() => isStale && refresh(), 2000);
}

// A search that has found nothing yet goes on by itself.
const onward = document.querySelector("a[data-search-on]");
if (onward) location.replace(onward.href);
