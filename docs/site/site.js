// Material makes these elements in the browser. A table that scrolls can be reached by keyboard, and the buttons of a block of code are no navigation.
document$.subscribe(() => {
  const name = () => {
    for (const wrap of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
      wrap.tabIndex = 0;
      wrap.setAttribute("role", "group");
      wrap.setAttribute("aria-label", "Table, can be scrolled sideways");
    }
    for (const nav of document.querySelectorAll(".md-code__nav")) nav.setAttribute("role", "none");
  };
  name();
  new MutationObserver(name).observe(document.querySelector(".md-content"), { childList: true, subtree: true });
});
