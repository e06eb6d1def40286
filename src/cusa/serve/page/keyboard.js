// The keys of the page: / and arrows and m and ?. None of them acts while something is typed.

import { byId } from "./elements.js";
import { neighbour } from "./grid.js";

const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];

const tiles = () => [...document.querySelectorAll("#panels .open")];

/** Move the focus to a result; it is the one that Tab comes back to. */
export function focusTile(button) {
  const list = button.closest("ol");
  for (const other of list.querySelectorAll('button[tabindex="0"]')) other.tabIndex = -1;
  for (const one of button.closest("li").querySelectorAll("button")) one.tabIndex = 0;
  if (document.activeElement !== button) button.focus();
  button.closest("li").scrollIntoView({ block: "nearest" });
}

/** @param {{like: (tile: HTMLElement) => void, detail: (action: string) => void, reset: () => void}} acts */
export function listen(acts) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const detail = byId("detail").open;
    if (document.querySelector("dialog[open]") && !detail) return;
    const types = target.matches("input:not([type=checkbox]), select, textarea");
    if (types) {
      if (event.key === "ArrowDown" && target.id === "q" && tiles().length) moveTo(event, tiles()[0]);
      if (event.key === "Escape" && target.id === "q") target.blur();
      return;
    }
    if (detail) return keyOfDetail(event, acts);
    if (event.key === "/") {
      event.preventDefault();
      byId("q").focus();
      byId("q").select();
    } else if (event.key === "?") byId("keys").showModal();
    else if (event.key === "m" && target.closest(".tile")) acts.like(target.closest(".tile"));
    else if (ARROWS.includes(event.key)) keyOfGrid(event, target);
  });
  byId("panels").addEventListener("focusin", (event) => {
    if (event.target.matches(".open")) focusTile(event.target);
  });
}

function keyOfDetail(event, acts) {
  if (event.key === "m") acts.detail("like");
  else if (event.key === "ArrowLeft") acts.detail("previous");
  else if (event.key === "ArrowRight") acts.detail("next");
  else return;
  event.preventDefault();
}

function keyOfGrid(event, target) {
  const all = tiles();
  const from = target.closest(".tile")?.querySelector(".open");
  if (!all.length || (!from && target !== document.body && !target.closest("#main"))) return;
  // Without a result in focus, the first one that can be seen.
  const to = from ? neighbour(all, from, event.key) : (all.find((tile) => tile.getBoundingClientRect().bottom > 80) ?? all[0]);
  if (to) moveTo(event, to);
  else if (from && event.key === "ArrowUp") moveTo(event, byId("q"));
}

function moveTo(event, element) {
  event.preventDefault();
  if (element.matches(".open")) focusTile(element);
  else element.focus();
}
