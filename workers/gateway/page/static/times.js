// Shows times in the viewer's time zone, and keeps ages true. Without JavaScript, times are in UTC.
"use strict";

const pad = (number) => String(number).padStart(2, "0");
const day = (at) => `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
const clock = (at) => `${pad(at.getHours())}:${pad(at.getMinutes())}`;
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

// The age of pages is measured by the queue's clock, as in the served page.
const skew = Date.now() - 1000 * Number(document.body.dataset.now);

// Formats seconds as the filter format_age of the templates does.
function duration(seconds) {
  const [size, unit] = UNITS.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${unit}`;
}

const FORMATS = {
  moment: (at) => `${day(at)} ${clock(at)}:${pad(at.getSeconds())}`,
  day: (at) => at.toLocaleDateString("en", { weekday: "short", day: "2-digit" }),
  clock,
  ago: (at) => `${duration(Math.max(0, Math.floor((Date.now() - skew - at) / 1000)))} ago`,
};

function showLocalTimes(root) {
  for (const element of root.querySelectorAll("time[data-time]")) {
    const at = new Date(element.dateTime);
    element.textContent = FORMATS[element.dataset.time](at);
    if (element.dataset.time === "ago") element.title = `${FORMATS.moment(at)} (${element.title})`;
  }
  const zone = root.querySelector("#zone");
  if (zone) zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
}

showLocalTimes(document);
setInterval(() => {
  for (const element of document.querySelectorAll("time[data-time=ago]")) {
    element.textContent = FORMATS.ago(new Date(element.dateTime));
  }
}, 5000);
