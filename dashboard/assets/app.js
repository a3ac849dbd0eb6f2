// Keeps the overview live: swaps the sections that the server sends, but never one that somebody is using. Without this file the
// pages can be read, and their buttons work.
//
// It runs before the page is there, so that the events have their connection before thumbnails take all that a browser opens.
"use strict";
(() => {
  if (location.pathname !== "/" || !window.EventSource) return;
  const range = new URLSearchParams(location.search).get("range") === "8d" ? "8d" : "2h";
  const address = `/events?range=${range}`;
  // What comes before there is a page.
  const early = new Map();
  let take = (name, html) => early.set(name, html);
  let tick = () => {};
  let failed = () => {};
  let events = null;
  const open = () => {
    events = new EventSource(address);
    events.addEventListener("section", (event) => {
      const end = event.data.indexOf("\n");
      take(event.data.slice(0, end), event.data.slice(end + 1));
    });
    events.addEventListener("tick", () => tick());
    events.onerror = () => failed();
  };
  open();

  const start = () => {
    const mark = document.getElementById("live");
    if (!mark) { events.close(); return; }
    const sections = [...document.querySelectorAll("[data-live]")];
    const waiting = new Map();
    let pressed = null;
    let late = null;

    const say = (state, words) => {
      // A screen reader says it when it changes, and only then.
      if (mark.dataset.state !== state) { mark.dataset.state = state; mark.textContent = words; }
    };
    const selected = (section) => {
      const selection = document.getSelection();
      return selection && !selection.isCollapsed && section.contains(selection.anchorNode);
    };
    const inUse = (section) =>
      section.contains(document.activeElement) || (pressed && section.contains(pressed)) || selected(section);

    // Children with a key that are there already stay: pictures do not flicker.
    const keep = (section, fresh) => {
      const known = new Map([...section.querySelectorAll("[data-key]")].map((child) => [child.dataset.key, child]));
      for (const child of fresh.querySelectorAll("[data-key]")) {
        const old = known.get(child.dataset.key);
        if (old) child.replaceWith(old);
      }
    };
    const swap = (section, html) => {
      const fresh = document.createElement("template");
      fresh.innerHTML = html;
      keep(section, fresh.content);
      const scrolled = [...section.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
      section.replaceChildren(fresh.content);
      section.querySelectorAll(".scroll").forEach((part, n) => { part.scrollLeft = scrolled[n] || 0; });
    };
    const offer = (section, html) => {
      if (inUse(section)) waiting.set(section, html); else { waiting.delete(section); swap(section, html); }
    };
    const catchUp = () => { for (const [section, html] of [...waiting]) offer(section, html); };

    document.addEventListener("pointerdown", (event) => { pressed = event.target; });
    for (const end of ["pointerup", "pointercancel"]) {
      document.addEventListener(end, () => setTimeout(() => { pressed = null; catchUp(); }));
    }
    document.addEventListener("focusout", () => setTimeout(catchUp));
    document.addEventListener("selectionchange", () => { if (waiting.size) setTimeout(catchUp); });

    take = (name, html) => {
      for (const section of sections) if (section.dataset.live === name) offer(section, html);
    };
    tick = () => { clearTimeout(late); late = null; say("live", "live"); };
    failed = () => {
      // The server ends a stream now and then; only what takes longer is worth a word.
      if (!late) late = setTimeout(() => say("away", "reconnecting…"), 3000);
      if (events.readyState === EventSource.CLOSED) setTimeout(again, 5000);
    };
    const again = () => { if (!document.hidden && events.readyState === EventSource.CLOSED) open(); };
    // A page that nobody sees asks for nothing.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { events.close(); say("away", "not looked at"); } else again();
    });
    for (const [name, html] of early) take(name, html);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start); else start();
})();
