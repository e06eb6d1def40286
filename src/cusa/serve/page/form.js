// The form at the top: it shows the state, and reads the next one.

import { byId, counted, fill, icon, make } from "./elements.js";
import { pictureAddress } from "./api.js";
import { show as showFilters } from "./filters.js";

const weightWords = (weight) => `${Math.round(100 * (1 - weight))} % text, ${Math.round(100 * weight)} % picture`;

/** What the fields hold now. */
export const typed = () => ({
  q: byId("q").value.trim(),
  not: byId("not").value.split(",").map((text) => text.trim()).filter(Boolean),
});

/**
 * @param {import("./state.js").State} state @param {import("./api.js").Index[]} indexes
 * @param {import("./api.js").Index[]} shown   the one or two that are searched
 * @param {import("./picture.js").Picture|null} picture
 * @param {(changes: object) => void} change
 */
export function reflect(state, indexes, shown, picture, change) {
  byId("q").value = state.q;
  byId("not").value = state.not.join(", ");
  byId("q").placeholder = indexes.length && shown[0].modality === "text" ? "Search the texts" : "Describe a picture";
  choices(byId("index"), indexes.map(({ name }) => [name, name]), shown[0]?.name ?? "");
  const others = indexes.filter(({ name }) => name !== shown[0]?.name).map(({ name }) => [name, name]);
  choices(byId("beside"), [["", "no other"], ...others], shown[1]?.name ?? "");
  byId("index").closest("label").hidden = byId("beside-field").hidden = indexes.length < 2;
  showFilters(byId("filters"), shown, state.filters, (filters) => change({ filters }));
  const active = state.not.length + Object.keys(state.filters).length;
  byId("options-count").textContent = String(active);
  byId("options-count").hidden = !active;
  byId("mix").hidden = !(state.q && (picture || state.like));
  byId("weight").value = String(state.weight);
  sayWeight();
  if (picture) chip("your picture", picture.url, change);
  else if (!state.like) byId("picture").hidden = true;
  else if (byId("picture").title !== state.like) chip(state.like, null, change); // until the server has told more of it
}

function choices(select, options, value) {
  select.replaceChildren(...options.map(([key, text]) => make("option", { value: key, selected: key === value }, text)));
}

/** The small picture in the search field, of an item of the index. */
export function showLike(result, change) {
  chip(result.captions[0] ?? result.item, result.image && pictureAddress(result.image, 96), change);
}

function chip(name, source, change) {
  const image = source && make("img", { src: source, alt: "" });
  // Some pictures can be searched with, but not be shown by this browser, as HEIC.
  image?.addEventListener("error", () => image.replaceWith(icon("picture")), { once: true });
  fill(
    byId("picture"),
    image || icon("picture"),
    make("span", { class: "sr" }, `Searching with ${name}`),
    make("button", { type: "button", "aria-label": `Search without ${name}`, title: `Search without ${name}`,
      onclick: () => change({ like: "", picture: false }) }, icon("close")),
  );
  byId("picture").title = name;
  byId("picture").hidden = false;
}

export function sayWeight() {
  const words = weightWords(Number(byId("weight").value));
  byId("weight-value").textContent = words;
  byId("weight").setAttribute("aria-valuetext", words);
}

/** What is shown before anything is searched. */
export function empty(indexes, shown, pictures, change) {
  const [index] = shown;
  const noun = index.modality === "image" ? "picture" : "text";
  const search = (changes) => (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab, by the link
    event.preventDefault();
    change(changes);
  };
  const link = (name, value) => `?${new URLSearchParams({ [name]: value })}`;
  fill(
    byId("empty"),
    make("h2", {}, `Search ${counted(index.rows, noun)}`),
    make("p", {}, "Type what you look for, or give a picture: drop, paste or choose one."),
    index.examples.length > 0 && make("ul", { class: "examples", role: "list", "aria-label": "Example queries" },
      ...index.examples.map((text) => make("li", {}, make("a", { href: link("q", text), onclick: search({ q: text }) }, text)))),
    pictures.length > 0 && make("ul", { class: "starts", role: "list", "aria-label": "Example pictures" },
      ...pictures.map((result) => make("li", {}, make("a", { href: link("like", result.item), onclick: search({ like: result.item }),
        title: "More like this", "aria-label": `More like this: ${result.captions[0] ?? result.item}` },
        make("img", { src: pictureAddress(result.image, 200), alt: "", width: 100, height: 100 }))))),
  );
  byId("empty").hidden = false;
}
