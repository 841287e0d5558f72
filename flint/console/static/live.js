// Brings the parts of a page that say data-live up to date while the page says so.
"use strict";
const EVERY_MS = 2000;
async function refresh() {
  if (document.hidden) return setTimeout(refresh, EVERY_MS);
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (fresh && !fresh.isEqualNode(part)) part.replaceWith(document.importNode(fresh, true));
      }
    }
  } catch {
    // The console was stopped, or the network is away: the next attempt tells.
  }
  if (document.querySelector("[data-live=on]")) setTimeout(refresh, EVERY_MS);
}
if (document.querySelector("[data-live=on]")) setTimeout(refresh, EVERY_MS);
