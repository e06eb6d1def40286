// The state of the page is its address: what is searched, where, and what is open.

/**
 * @typedef {object} State
 * @property {string} q
 * @property {string[]} not
 * @property {string} index     name of the left index; "" is the first
 * @property {string|null} beside   name of the right index; "" for none, null for the one that fits
 * @property {string} like      the item that the results are like; "" for none
 * @property {boolean} picture  whether a picture of the user's is part of the query; the address cannot hold it
 * @property {number} weight    of the picture beside the text, 0 to 1
 * @property {Object<string, string[]>} filters   a column's values, any of which is right
 * @property {number} top       how many results are shown
 * @property {{side: "left"|"right", row: number}|null} open   the result that is shown large
 */

export const PAGE_SIZE = 48;
export const MOST = 200; // results that the server gives at once

/** @returns {State} */
export function read(query) {
  const given = new URLSearchParams(query);
  const number = (name, low, high, otherwise) => {
    const value = Number(given.get(name) ?? NaN);
    return value >= low && value <= high ? value : otherwise;
  };
  /** @type {Object<string, string[]>} */
  const filters = {};
  for (const [name, value] of given)
    if (name.startsWith("filter.") && name.length > 7) (filters[name.slice(7)] ??= []).push(value);
  const [side, row] = (given.get("open") ?? "").split(".");
  return {
    q: (given.get("q") ?? "").trim(),
    not: given.getAll("not").map((text) => text.trim()).filter(Boolean),
    index: given.get("index") ?? "",
    beside: given.get("beside"),
    like: given.get("like") ?? "",
    picture: given.has("picture"),
    weight: number("weight", 0, 1, 0.5),
    filters,
    top: Math.round(number("top", 1, MOST, PAGE_SIZE)),
    open: /^(left|right)$/.test(side) && /^\d+$/.test(row ?? "") ? { side, row: Number(row) } : null,
  };
}

/** The query string of a state; what is as usual is left out. @param {State} state */
export function write(state) {
  const fields = new URLSearchParams();
  if (state.q) fields.set("q", state.q);
  for (const text of state.not) fields.append("not", text);
  if (state.like) fields.set("like", state.like);
  if (state.picture) fields.set("picture", "uploaded");
  if (state.index) fields.set("index", state.index);
  if (state.beside !== null) fields.set("beside", state.beside);
  if (state.weight !== 0.5) fields.set("weight", String(state.weight));
  for (const [column, values] of Object.entries(state.filters))
    for (const value of values) fields.append(`filter.${column}`, value);
  if (state.top !== PAGE_SIZE) fields.set("top", String(state.top));
  if (state.open) fields.set("open", `${state.open.side}.${state.open.row}`);
  const text = fields.toString();
  return text ? `?${text}` : "";
}

/** Whether there is anything to search for. @param {State} state */
export const hasQuery = (state) => Boolean(state.q || state.like || state.picture);

/** Whether there is anything to show: filters alone list what passes them. @param {State} state */
export const hasResults = (state) => hasQuery(state) || Object.keys(state.filters).length > 0;
