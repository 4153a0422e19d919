// Shows what has come or gone while the page is open. Nothing moves: a list that jumps would put
// another button under the finger. Without this script, a reload shows the same.
"use strict";

const list = document.getElementById("sessions");
const news = document.getElementById("news");
let isAsking = false;
let isStale = false;

function say(text) {
  news.querySelector("span").textContent = text;
  news.hidden = false;
}

const sessions = (page) => [...page.querySelectorAll("#sessions > li")];

function compare(page) {
  const fresh = new Map(sessions(page).map((item) => [item.dataset.id, item]));
  const shown = sessions(document);
  // A session that came may have moved the last ones to the next page. So a session is gone only if
  // one behind it is still there, or if there is no next page.
  let isBefore = page.getElementById("next") === null;
  let gone = 0;
  for (const item of shown.toReversed()) {
    const now = fresh.get(item.dataset.id);
    if (now) {
      isBefore = true;
      item.querySelector(".times").replaceWith(now.querySelector(".times"));
    } else if (isBefore || item.classList.contains("gone")) {
      gone += 1;
      item.classList.add("gone");
      const state = item.querySelector(".state");
      state.textContent = "Gone";
      state.hidden = false;
      item.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    }
  }
  const known = new Set(shown.map((item) => item.dataset.id));
  const come = [...fresh.keys()].filter((id) => !known.has(id)).length;
  document.getElementById("as-of").replaceWith(page.getElementById("as-of"));
  if (come + gone > 0) {
    say(`${come} new, ${gone} gone.`);
  } else {
    news.hidden = true;
  }
}

async function look() {
  isStale = true;
  if (isAsking) return;
  isAsking = true;
  try {
    while (isStale) {
      isStale = false;
      const address = new URL(location.href);
      address.searchParams.delete("count");
      const answer = await fetch(address, { headers: { "x-live": "yes" } });
      if (answer.redirected || !answer.ok) {
        end("Log in, or give your password again.");
        return;
      }
      compare(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
  } catch {
    // The server is away. The events begin again by themselves, and ask again then.
  } finally {
    isAsking = false;
  }
}

const events = new EventSource("/admin/changes");
// The page may be older than the events.
events.onopen = look;
events.onmessage = look;
events.onerror = () => {
  if (events.readyState === EventSource.CLOSED) end("Log in, or give your password again.");
};

function end(why) {
  events.close();
  say(`This page is no longer live. ${why}`);
}
