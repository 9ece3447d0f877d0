// The page works without this file. With it: times in the reader's zone, one box that ticks all,
// and the page kept up to date while it is looked at.
"use strict";
(() => {
  const EVERY_MS = 5000, MOST_MS = 60000;
  const zone = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});

  function enhance(root) {
    for (const time of root.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (!isNaN(at)) { time.title = time.textContent; time.textContent = zone.format(at); }
    }
    for (const all of root.querySelectorAll("input[data-all]")) {
      all.hidden = false;
      all.addEventListener("change", () => {
        for (const box of all.closest("form").querySelectorAll("input[name=id]")) box.checked = all.checked;
      });
    }
  }

  // What a person is in the middle of is never replaced, nor what the keyboard has come to.
  function isBusy(main) {
    const active = document.activeElement, chosen = document.getSelection();
    return document.hidden || (chosen && !chosen.isCollapsed) ||
      (active && active !== main && main.contains(active) &&
        (/^(INPUT|SELECT|TEXTAREA|BUTTON|SUMMARY)$/.test(active.tagName) || active.matches(":focus-visible"))) ||
      main.querySelector("input[name=id]:checked, details[open], [data-still]") !== null;
  }

  const main = document.getElementById("main"), said = document.getElementById("said");
  const live = document.getElementById("live");
  let wait = EVERY_MS;

  async function renew() {
    if (live.checked && !isBusy(main)) {
      try {
        const answer = await fetch(location.href, {credentials: "same-origin", headers: {"X-Console-Live": "1"}});
        if (!answer.ok) throw new Error(String(answer.status));
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
        if (!fresh) throw new Error("another page");
        if (!isBusy(main)) {
          enhance(fresh);
          main.replaceChildren(...fresh.childNodes);
        }
        wait = EVERY_MS;
        said.textContent = "";
      } catch (error) {
        wait = Math.min(wait * 2, MOST_MS);
        said.textContent = said.dataset.late
          .replace("{error}", () => error.message).replace("{n}", () => String(Math.round(wait / 1000)));
      }
    }
    setTimeout(renew, wait);
  }

  enhance(document);
  live.parentElement.hidden = false;
  document.addEventListener("visibilitychange", () => { if (!document.hidden) wait = EVERY_MS; });
  setTimeout(renew, wait);
})();
