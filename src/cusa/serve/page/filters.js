// Filters on columns of the items: a menu a column, with its values and how often each occurs.

import { make } from "./elements.js";

const SEARCHABLE = 12; // values, from which on the menu has a field that finds one

/**
 * The columns and values of all indexes that are shown; of two indexes, the larger count.
 * @param {import("./api.js").Index[]} indexes
 */
export function columns(indexes) {
  /** @type {Map<string, Map<string, number>>} */
  const found = new Map();
  for (const index of indexes)
    for (const [column, values] of Object.entries(index.filters)) {
      if (!found.has(column)) found.set(column, new Map());
      const counts = found.get(column);
      for (const { value, count } of values) counts.set(value, Math.max(count, counts.get(value) ?? 0));
    }
  return found;
}

/**
 * @param {HTMLElement} place @param {import("./api.js").Index[]} indexes
 * @param {Object<string, string[]>} chosen
 * @param {(filters: Object<string, string[]>) => void} changed
 */
export function show(place, indexes, chosen, changed) {
  const before = place.querySelector("details[open]");
  const kept = before && { // an open menu goes on as it was before a value was chosen in it
    words: before.querySelector(".find")?.value ?? "",
    scroll: before.querySelector(".values").scrollTop,
    focus: before.contains(document.activeElement) ? document.activeElement.value : null,
  };
  const menus = [...columns(indexes)].map(([column, counts]) =>
    menu(column, counts, chosen, changed, column === before?.dataset.column));
  place.replaceChildren(...menus);
  const after = place.querySelector("details[open]");
  if (kept && after) goOn(after, kept);
}

function goOn(menu, { words, scroll, focus }) {
  const find = menu.querySelector(".find");
  if (find && words) {
    find.value = words;
    find.dispatchEvent(new Event("input"));
  }
  menu.querySelector(".values").scrollTop = scroll;
  const same = [...menu.querySelectorAll("input")].find((input) => input.value === focus);
  if (focus !== null) (same ?? menu.querySelector("summary")).focus();
}

function menu(column, counts, chosen, changed, opened) {
  const picked = new Set(chosen[column] ?? []);
  const values = [...new Set([...picked, ...counts.keys()])];
  const choose = (value, on) => {
    on ? picked.add(value) : picked.delete(value);
    const others = Object.entries(chosen).filter(([name]) => name !== column);
    changed(Object.fromEntries(picked.size ? [...others, [column, [...picked]]] : others));
  };
  const list = make("div", { class: "values" }, ...values.map((value) =>
    make("label", { class: "value" },
      make("input", {
        type: "checkbox", value, checked: picked.has(value),
        onchange: (event) => choose(value, event.target.checked),
      }),
      make("span", { class: "name" }, value === "" ? "(empty)" : value),
      make("span", { class: "of" }, counts.get(value)?.toLocaleString("en") ?? "0"),
    )));
  const find = values.length >= SEARCHABLE && make("input", {
    type: "search", class: "find", placeholder: `Find in ${values.length.toLocaleString("en")} values`, "aria-label": `Find a value of ${column}`,
    oninput: (event) => {
      const words = event.target.value.trim().toLowerCase();
      for (const row of list.children) row.hidden = !row.textContent.toLowerCase().includes(words);
    },
  });
  const said = picked.size === 1 ? `${column}: ${[...picked][0]}` : picked.size ? `${column}: ${picked.size}` : column;
  return make("details", { "data-column": column, class: picked.size ? "on" : null, open: opened, name: "filter" },
    make("summary", { class: "button quiet" }, said),
    make("div", { class: "menu", role: "group", "aria-label": column },
      find,
      list,
      picked.size > 0 && make("button", { class: "link", type: "button", onclick: () => {
        picked.clear();
        choose("", false);
      } }, "Clear"),
    ));
}

/** Close the menus that an element is not part of. */
export function closeMenus(place, except = null) {
  for (const details of place.querySelectorAll("details[open]"))
    if (!details.contains(except)) details.open = false;
}
