// What htmx leaves unsaid: that a request which somebody made has failed. And a tab that nobody looks at asks for
// nothing. Every page works without this file; decision record 21 says why there is a script at all.
"use strict";
(() => {
  // These answers say themselves what is wrong, in the place of the form.
  const SAID = [403, 409, 422, 429];
  const clear = () => document.getElementById("trouble")?.remove();
  // What asks by itself, every few seconds, was caused by nothing that anybody did.
  const byItself = (event) => !event.detail.requestConfig?.triggeringEvent;

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (!byItself(event)) clear();
    else if (document.hidden) event.preventDefault();
  });
  const say = (event) => {
    if (byItself(event) || SAID.includes(event.detail.xhr.status)) return;
    clear();
    const trouble = document.createElement("div");
    Object.assign(trouble, { id: "trouble", className: "errors", tabIndex: -1, textContent: document.body.dataset.trouble });
    trouble.setAttribute("role", "alert");
    event.detail.elt.before(trouble);
    trouble.focus();
  };
  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) document.addEventListener(name, say);
})();
