// The page of `cusa serve`. The address holds the state; each change of it goes through `go`, and `refresh` shows it.

import * as api from "./api.js";
import * as detail from "./detail.js";
import { byId, fill, make } from "./elements.js";
import { closeMenus } from "./filters.js";
import * as form from "./form.js";
import { justify } from "./grid.js";
import * as keyboard from "./keyboard.js";
import * as pictures from "./picture.js";
import * as results from "./results.js";
import { hasQuery, hasResults, MOST, PAGE_SIZE, read, write } from "./state.js";

const PATIENCE = 150; // milliseconds before the page says that it waits
const MOST_TRIES = 3; // of a server that is busy
const MOST_KEPT = 30; // answers, for back and forward

/** @type {api.Index[]} */
let indexes = [];
let state = read(location.search);
/** @type {pictures.Picture|null} */
let picture = null;
/** @type {{side: "left"|"right", index: api.Index, found: api.SearchResponse, problem: api.ServerError|null}[]} */
let shown = [];
let shownKey = ""; // what the panels show, without how many
let running = new AbortController();
let tries = 0;
let retry = 0;
const kept = new Map();

// ---- the state -----------------------------------------------------------------------------------------------------

/** Change the state. Open and top begin anew with each new search. */
function go(changes, { replace = false, focus = false } = {}) {
  const next = { ...state, top: PAGE_SIZE, open: null, ...changes };
  if (!next.picture) picture = null;
  remember();
  state = next;
  const opened = replace ? Boolean(history.state?.opened) : Boolean(changes.open); // Esc then goes back
  const mine = { picture: picture?.number ?? null, opened };
  const address = location.pathname + write(state);
  if (replace || address === location.pathname + location.search) history.replaceState({ ...history.state, ...mine }, "", address);
  else history.pushState(mine, "", address);
  tries = 0;
  if (!("open" in changes || "top" in changes)) shownKey = ""; // the same query asked again is answered again
  return refresh({ focus, scroll: "open" in changes || "top" in changes ? null : 0 });
}

const remember = () => history.replaceState({ ...history.state, scroll: scrollY }, "");

/** The one or two indexes that are searched. Two models of the same pictures are compared unless the address says no. */
function sides() {
  const named = (name) => indexes.find((index) => index.name === name);
  const left = named(state.index) ?? indexes[0];
  const fits = (index) => index !== left && index.modality === left.modality && index.rows === left.rows;
  const right = state.beside === null ? indexes.find(fits) : named(state.beside);
  return right && right !== left ? [left, right] : [left];
}

const restart = (changes) => go(changes, { focus: false });

// ---- searching -----------------------------------------------------------------------------------------------------

async function refresh({ focus = false, scroll = null, again = false } = {}) {
  running.abort();
  clearTimeout(retry);
  const mine = (running = new AbortController());
  const waiting = setTimeout(() => waits(true), PATIENCE);
  try {
    if (!state.open) byId("detail").close();
    if (!indexes.length) await learnIndexes();
    if (mine.signal.aborted) return;
    form.reflect(state, indexes, sides(), picture, restart);
    document.title = state.q ? `${state.q} · Search` : "Search";
    note();
    const lost = state.picture && !picture && !state.q && !state.like; // a picture that the address could not hold
    if (hasResults(state) && !lost) await find(mine.signal, again);
    else await begin();
    if (mine.signal.aborted) return;
    byId("problem").hidden = true;
    if (scroll !== null) scrollTo(0, scroll);
    if (focus) document.querySelector("#panels .open")?.focus();
    await showOpen(mine.signal);
  } catch (error) {
    if (error.name === "AbortError" || mine.signal.aborted) return;
    if (!(error instanceof api.ServerError)) throw error;
    troubled(error);
  } finally {
    clearTimeout(waiting);
    if (running === mine) {
      waits(false);
      document.body.classList.add("ready");
    }
  }
}

async function learnIndexes() {
  indexes = await api.indexes();
  const rows = new Set(indexes.map((index) => index.rows));
  byId("about").textContent = rows.size === 1 ? `${[...rows][0].toLocaleString("en")} items in ${indexes.map(({ name }) => name).join(", ")}` : indexes.map(({ name, rows }) => `${name}: ${rows.toLocaleString("en")}`).join(", ");
}

/** Say what the address asked for and the page cannot show. */
function note() {
  const said = [];
  for (const name of [state.index, state.beside])
    if (name && !indexes.some((index) => index.name === name))
      said.push(`There is no index ${name} here, only ${indexes.map((index) => index.name).join(", ")}.`);
  if (state.picture && picture) said.push("Your picture is not part of the address: who opens it sees the search without the picture.");
  if (state.picture && !picture) said.push("A picture was part of this search. The address cannot hold it: drop the picture here to search with it.");
  byId("note").textContent = said.join(" ");
  byId("note").hidden = !said.length;
}

function waits(on) {
  byId("progress").hidden = !on;
  byId("main").setAttribute("aria-busy", String(on));
}

async function find(signal, again) {
  const asked = sides().map((index, place) => ({ side: place ? "right" : "left", index, query: queryOf(index) }));
  const key = JSON.stringify([asked.map(({ query }) => ({ ...query, top: 0, file: 0 })), picture?.number ?? 0]);
  if (key === shownKey && shown.every(({ found }) => found && enough(found))) return;
  const outcomes = await Promise.all(asked.map(async ({ side, index, query }) => {
    try {
      return { side, index, found: await answer(query, signal, again), problem: null };
    } catch (problem) {
      if (!(problem instanceof api.ServerError) || problem.status === 401) throw problem;
      return { side, index, found: null, problem };
    }
  }));
  signal.throwIfAborted();
  if (outcomes.every(({ problem }) => problem) || outcomes.some(({ problem }) => problem?.status === 503))
    throw outcomes.find(({ problem }) => problem).problem;
  render(outcomes, key);
}

const enough = (found) => found.results.length >= Math.min(state.top, found.total);

function queryOf(index) {
  const filters = Object.fromEntries(Object.entries(state.filters).filter(([column]) => column in index.filters));
  const file = state.picture ? (picture?.file ?? null) : null;
  return { index: index.name, q: state.q, not: hasQuery(state) ? state.not : [], like: state.like, weight: state.weight, top: state.top, filters, file };
}

/** The answer of the server, or with `again` the one that it gave before. */
async function answer(query, signal, again) {
  const key = JSON.stringify([{ ...query, file: 0 }, picture?.number ?? 0]);
  if (again && kept.has(key)) return kept.get(key);
  const found = await api.search(query, signal);
  const index = indexes.find(({ name }) => name === query.index);
  const plain = query.q && !query.like && !query.file && !query.not.length;
  if (plain && index.has_answers && !found.answers && found.results.some(({ correct }) => correct !== null))
    found.answers = await api.answers(query.index, query.q, signal);
  kept.delete(key);
  kept.set(key, found);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  return found;
}

// ---- showing -------------------------------------------------------------------------------------------------------

function render(outcomes, key) {
  const grows = key === shownKey && shown.length === outcomes.length && outcomes.every(({ found }, n) => found && shown[n].found);
  shown = outcomes;
  shownKey = key;
  byId("empty").hidden = true;
  const place = byId("panels");
  if (grows) {
    for (const { side, index, found } of shown)
      results.append(place.querySelector(`[data-side=${side}]`), index, found.results);
  } else {
    results.forget(place);
    place.classList.toggle("two", shown.length > 1);
    place.replaceChildren(...shown.map(({ side, index, found, problem }) => found
      ? results.panel(side, index, found, shown.length > 1, [results.unknown(found), unfiltered(index)])
      : make("section", { class: "panel", "data-side": side }, make("h2", {}, index.name), make("p", { class: "none" }, problem.message))));
    place.querySelectorAll("ol.image").forEach(justify);
  }
  sum(shown.filter(({ found }) => found));
}

/** What is said of all panels together. */
function sum(good) {
  const like = good.map(({ found }) => found.query.like).find(Boolean);
  if (like && state.like) form.showLike(like, restart);
  byId("status").textContent = results.status(good);
  const known = results.answers(good);
  byId("answers").replaceChildren(...(known ?? []));
  byId("answers").hidden = !known;
  byId("more").hidden = state.top >= MOST || good.every(({ found }) => found.results.length >= found.total || found.results.length < state.top);
}

function unfiltered(index) {
  const missing = Object.keys(state.filters).filter((column) => !(column in index.filters));
  return missing.length ? `Not filtered by ${missing.join(", ")}: this index has no such column.` : "";
}

function clear() {
  results.forget(byId("panels"));
  byId("panels").replaceChildren();
  byId("answers").hidden = byId("more").hidden = byId("empty").hidden = true;
  byId("status").textContent = "";
  [shown, shownKey] = [[], ""];
}

let starts = null; // some pictures to begin with, asked for once

async function begin() {
  clear();
  const [index] = sides();
  form.empty(indexes, sides(), starts ?? [], restart);
  if (index.modality !== "image" || starts) return;
  const count = Math.min(8, index.rows);
  const rows = [...Array(count).keys()].map((n) => Math.floor(((n + 0.5) * index.rows) / count));
  const found = await Promise.allSettled(rows.map((row) => api.item(index.name, row)));
  starts = found.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
  if (!hasResults(state)) form.empty(indexes, sides(), starts, restart);
}

function troubled(error) {
  if (error.status === 401) return askToken();
  clear();
  if (picture && [413, 415].includes(error.status)) withoutPicture();
  const busy = error.status === 503 && ++tries < MOST_TRIES;
  const wait = Math.min(30, error.wait || 2 ** tries);
  if (busy) retry = setTimeout(() => refresh(), 1000 * wait);
  fill(
    byId("problem"),
    make("p", {}, error.message),
    busy && make("p", { class: "soft" }, `The page asks again in ${wait} second${wait === 1 ? "" : "s"}.`),
    (error.status === 0 || error.status >= 500) && make("button", { class: "button", type: "button", onclick: () => refresh() }, "Try again"),
  );
  byId("problem").dataset.status = String(error.status);
  byId("problem").hidden = false;
}

/** A picture that the server refuses is not part of what is asked next. */
function withoutPicture() {
  picture = null;
  state = { ...state, picture: false };
  history.replaceState({ ...history.state, picture: null }, "", location.pathname + write(state));
  form.reflect(state, indexes, sides(), picture, restart);
  note();
}

// ---- the result that is shown large ----------------------------------------------------------------------------------

async function showOpen(signal) {
  const dialog = byId("detail");
  if (!state.open) return;
  const { side, row } = state.open;
  const panel = shown.find((one) => one.side === side) ?? { index: sides()[side === "right" ? 1 : 0] ?? sides()[0], found: null };
  const list = panel.found?.results ?? [];
  const place = list.findIndex((result) => result.row === row);
  const result = list[place] ?? (await api.item(panel.index.name, row, signal));
  const move = (step) => () => openAt(side, list[place + step].row, { replace: true });
  const acts = {
    previous: move(-1), next: move(1), close: closeOpen, like: () => like(result.item),
  };
  const context = { place, ranks: ranksOf(result), previous: place > 0, next: place >= 0 && place + 1 < list.length };
  act = (action) => ((action in context ? context[action] : true) ? acts[action]() : undefined);
  detail.show(dialog, result, { ...context, act });
}

let act = () => {};

/** Where each of the shown indexes found the same item. */
function ranksOf(result) {
  return shown.filter(({ found }) => found).map(({ index, found }) => {
    const place = found.results.findIndex(({ item }) => item === result.item);
    const known = found.answers?.find(({ row }) => row === result.row && index.name === sides()[0].name)?.rank;
    const rank = place >= 0 ? place + 1 : known;
    return { name: shown.length > 1 ? `rank, ${index.name}` : "rank", text: rank ? rank.toLocaleString("en") : `after the first ${found.results.length}` };
  });
}

const openAt = (side, row, options) => go({ open: { side, row: Number(row) }, top: state.top }, options);

function closeOpen() {
  if (!state.open) return;
  const { side, row } = state.open;
  if (history.state?.opened) history.back();
  else go({ open: null, top: state.top }, { replace: true });
  byId("panels").querySelector(`[data-side=${side}] [data-row="${row}"] .open`)?.focus();
}

const like = (item) => go({ like: item, q: "", picture: false, not: [] }, { focus: true });

// ---- the token -------------------------------------------------------------------------------------------------------

function askToken() {
  byId("token-problem").textContent = "";
  byId("token-value").value = "";
  byId("token").showModal();
}

async function tokenGiven(event) {
  event.preventDefault();
  try {
    await api.giveToken(byId("token-value").value);
    byId("token").close();
    await refresh();
  } catch (error) {
    byId("token-problem").textContent = error.message;
    byId("token-value").select();
  }
}

// ---- what the user does ----------------------------------------------------------------------------------------------

function withPicture(file) {
  picture = pictures.keep(file);
  go({ picture: true, like: "", q: form.typed().q, not: form.typed().not });
}

function listen() {
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (matchMedia("(pointer: coarse)").matches) byId("q").blur(); // hides the keyboard of a phone
    go(form.typed());
  });
  byId("index").addEventListener("change", (event) => go({ index: event.target.value }));
  byId("beside").addEventListener("change", (event) => go({ beside: event.target.value }));
  byId("not").addEventListener("change", () => go(form.typed()));
  byId("weight").addEventListener("input", form.sayWeight);
  byId("weight").addEventListener("change", (event) => go({ weight: Number(event.target.value), ...form.typed() }));
  byId("more").addEventListener("click", () => go({ top: Math.min(MOST, state.top + PAGE_SIZE) }, { replace: true }));
  byId("options-button").addEventListener("click", (event) => {
    const open = byId("options").classList.toggle("open");
    event.currentTarget.setAttribute("aria-expanded", String(open));
  });
  byId("keys-button").addEventListener("click", () => byId("keys").showModal());
  byId("token-form").addEventListener("submit", tokenGiven);
  byId("panels").addEventListener("click", clicked);
  byId("answers").addEventListener("click", clicked);
  byId("detail").addEventListener("close", closeOpen);
  for (const dialog of document.querySelectorAll("dialog:not(#token)"))
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it
  document.addEventListener("click", (event) => closeMenus(byId("filters"), event.target));
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && event.target.closest?.("details[open]");
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  pictures.listen(withPicture);
  keyboard.listen({ like: (tile) => tile.querySelector(".like").click(), detail: (action) => act(action) });
}

function clicked(event) {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  if (button.dataset.action === "answer") return openAt(button.dataset.side, button.dataset.row);
  const { side } = button.closest(".panel").dataset;
  const { row } = button.closest(".tile").dataset;
  if (button.dataset.action === "open") return openAt(side, row);
  const { found } = shown.find((one) => one.side === side);
  return like(found.results.find((result) => result.row === Number(row)).item);
}

addEventListener("popstate", () => {
  state = read(location.search);
  picture = pictures.pictureOf(history.state?.picture);
  refresh({ again: true, scroll: history.state?.scroll ?? null });
});
addEventListener("online", () => byId("problem").dataset.status === "0" && !byId("problem").hidden && refresh());
let settling = 0;
addEventListener("scroll", () => {
  clearTimeout(settling);
  settling = setTimeout(remember, 250);
}, { passive: true });

history.scrollRestoration = "manual";
picture = pictures.pictureOf(history.state?.picture);
listen();
refresh({ scroll: history.state?.scroll ?? null });
