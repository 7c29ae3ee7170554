// The moderators' keys, and where the focus goes after a decision. Each key presses a button of the page, and each
// button works without this file. Decision record 21 says why there is a script at all.
"use strict";
(() => {
  const desk = document.getElementById("desk");
  if (!desk) return;
  // Items are known by their ids, since htmx puts another element in the place of a decided one.
  let current = location.hash.slice(1), decided = "", undoOnceDecided = "", leaving = false;
  let byKey = false, sent = null, returning = "";

  const items = () => [...desk.querySelectorAll(".item")];
  const waits = (item) => !item.dataset.sent && item.querySelector("[name=decision]") !== null;
  const here = () => items().find((item) => item.contains(document.activeElement)) ?? document.getElementById(current);
  const go = (item) => { if (item) { current = item.id; item.focus(); } };

  const step = (by) => {
    const all = items(), place = all.indexOf(here());
    go(place < 0 ? all[0] : all[place + by]);
  };
  const goOn = (from) => {
    const all = items(), place = all.indexOf(from);
    const next = [...all.slice(place + 1), ...all.slice(0, place)].find(waits);
    const anew = document.getElementById("anew");
    // Once all of this page are decided, what is left to do is to load what waits now.
    if (next || !anew) go(next ?? from);
    else { current = from.id; anew.focus(); }
  };
  const press = (item, decision) => {
    if (!item || !waits(item)) return;
    byKey = true;
    item.querySelector(`[name=decision][value=${decision}]`)?.click();
    byKey = false;
    if (sent) goOn(sent);
    sent = null;
  };
  const undo = () => {
    const last = document.getElementById(decided);
    if (last?.dataset.sent) { undoOnceDecided = decided; return; }
    const places = [here(), last, document];
    places.map((place) => place?.querySelector("[data-undo]")).find(Boolean)?.click();
  };

  // One form of an item is sent once, however often its button is pressed; and without htmx one of the whole page.
  desk.addEventListener("submit", (event) => {
    const item = event.target.closest(".item"), decision = event.submitter?.name === "decision";
    if (!item) return;
    if (leaving || item.dataset.sent) {
      event.preventDefault();
      event.stopImmediatePropagation();
      return;
    }
    item.dataset.sent = "yes";
    leaving = !window.htmx || !event.target.hasAttribute("data-hx-post");
    if (decision) decided = item.id;
    if (event.submitter?.matches("[data-undo]")) returning = item.id;
    const reason = event.target.querySelector("select");
    // htmx forgets which button was pressed when the focus leaves it, so the focus goes on after htmx has looked.
    if (!decision || leaving || (reason && !reason.value)) return;
    if (byKey) sent = item;
    else setTimeout(goOn, 0, item);
  }, true);

  // What was not swapped was not done: it may be sent again.
  desk.addEventListener("htmx:afterRequest", (event) => {
    const item = event.target.closest?.(".item");
    if (item) delete item.dataset.sent;
  });
  // How many wait comes with each decision. Answers that overtake one another do not turn the number back.
  document.body.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail, counted = fragment.firstElementChild;
    if (target.id === "waiting" && counted.dataset.at < target.dataset.at) event.detail.shouldSwap = false;
  });
  document.body.addEventListener("htmx:afterSettle", () => {
    const waiting = document.getElementById("waiting");
    if (waiting) document.title = document.title.replace(/^.*(?= – )/, () => waiting.textContent.trim());
    const undone = document.getElementById(undoOnceDecided)?.querySelector("[data-undo]");
    if (undone) { undoOnceDecided = ""; undone.click(); }
    const returned = document.getElementById(returning);
    if (returned && !returned.dataset.sent) { returning = ""; go(returned); }
    if (document.activeElement === document.body) go(document.getElementById(current));
  });

  if (desk.dataset.keys !== "on") return;
  const keys = {
    j: () => step(1),
    k: () => step(-1),
    a: () => press(here(), "approve"),
    s: () => press(here(), "spam"),
    r: () => here()?.querySelector("select")?.focus(),
    u: undo,
    x: () => here()?.querySelector("[name=ticked]")?.click(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    // Who is in the form of a rejection means to type: no key decides there, wherever in it the focus is.
    if (event.target.closest(".item .stack, .ticked")) {
      const chosen = event.key === "Enter" && event.target.matches(".item select");
      if (chosen) { event.preventDefault(); press(here(), "reject"); }
      if (event.key === "Escape") go(here());
      return;
    }
    if (event.target.matches("textarea, select, input:not([type=checkbox])")) return;
    // A key that is held down would go on deciding.
    if (!keys[event.key] || (event.repeat && !"jk".includes(event.key))) return;
    event.preventDefault();
    keys[event.key]();
  });
})();
