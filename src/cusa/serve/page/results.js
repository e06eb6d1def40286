// A panel of results: one index, its found items as tiles, and how to go on from each.

import { pictureAddress } from "./api.js";
import { counted, icon, make } from "./elements.js";
import { justify } from "./grid.js";

const THUMBNAIL = 320; // pixels in height, enough for tiles on screens of two pixels a point

const resized = new ResizeObserver((entries) => entries.forEach((entry) => justify(entry.target)));

/** What to say if the model of an index does not know texts of the search, or "". */
export function unknown(found) {
  const texts = found.unknown_texts ?? [];
  if (!texts.length) return "";
  const { q, picture, like } = found.query;
  const all = texts.includes(q) && !picture && !like;
  const named = texts.map((text) => `“${text}”`).join(" and ");
  return `The model has no word for ${named}, so ${all ? "these results mean" : "this part of the search means"} nothing. ` +
    "Search with words that it knows. A model with a multilingual text side knows more.";
}

/** What a person calls a result. */
export const nameOf = (result) => result.captions[0] ?? result.item;

/** "0.412"; the minus sign is a real one. */
export const scoreText = (score) => (score === null ? "" : score.toFixed(3).replace("-", "−"));

export const sameText = (same) => (same.kind === "same" ? "the same as an earlier result" : "nearly the same as an earlier result");

/**
 * @param {"left"|"right"} side @param {import("./api.js").Index} index @param {import("./api.js").SearchResponse} found
 * @param {boolean} titled whether the panel says which index it shows
 * @param {string[]} notes sentences above the results; an empty one is left out
 */
export function panel(side, index, found, titled, notes) {
  const title = `${side}-title`;
  const list = make("ol", { class: `results ${index.modality}`, role: "list", "aria-label": `Results of ${index.name}` });
  const section = make(
    "section",
    { class: "panel", "data-side": side, "aria-labelledby": title },
    make("h2", { id: title, class: titled ? null : "sr", title: index.model }, index.name),
    ...notes.filter(Boolean).map((note) => make("p", { class: "note", role: "status" }, note)),
    list,
    !found.results.length && make("p", { class: "none" }, "Nothing was found. Fewer filters may help."),
  );
  append(section, index, found.results);
  if (index.modality === "image") resized.observe(list);
  return section;
}

/** Add the results that a panel does not show yet. */
export function append(section, index, results) {
  const list = section.querySelector("ol");
  const tiles = make("ol");
  for (let place = list.children.length; place < results.length; place++)
    tiles.append(tile(index, results[place], place));
  if (!list.children.length) tiles.querySelector("button")?.setAttribute("tabindex", "0");
  list.append(...tiles.children);
  if (index.modality === "image" && list.isConnected) justify(list);
}

/** Let go of panels that are to be replaced. */
export function forget(panels) {
  for (const list of panels.querySelectorAll("ol")) resized.unobserve(list);
}

function tile(index, result, place) {
  const name = nameOf(result);
  const [right, same] = [result.correct === true, result.same_as];
  const said = [name, `result ${place + 1}`];
  if (result.score !== null) said.push(`score ${scoreText(result.score)}`);
  if (right) said.push("right answer");
  if (same) said.push(sameText(same));
  return make(
    "li",
    {
      class: `tile${right ? " right" : ""}`,
      "data-row": result.row,
      "data-ratio": result.image ? (result.width || 1) / (result.height || 1) : null,
    },
    make(
      "button",
      { class: "open", type: "button", tabindex: "-1", "data-action": "open", "aria-label": said.join(", ") },
      result.image && picture(result, THUMBNAIL),
      make("span", { class: "caption" }, index.modality === "text" ? result.item : name),
      make(
        "span",
        { class: "facts" },
        make("span", { class: "rank" }, place + 1),
        make("span", {}, scoreText(result.score)),
        same && make("span", { class: "same", title: sameText(same) }, same.kind === "same" ? "copy" : "≈ copy"),
      ),
      right && make("span", { class: "tick" }, icon("tick")),
    ),
    make(
      "button",
      { class: "like", type: "button", tabindex: "-1", "data-action": "like", "aria-label": `More like this: ${name}`, title: "More like this (m)" },
      icon("like"),
    ),
  );
}

/** A picture that takes its room before it has arrived. */
export function picture(result, height, text = "") {
  const image = make("img", {
    src: pictureAddress(result.image, height),
    alt: text,
    width: result.width,
    height: result.height,
    loading: height ? "lazy" : "eager",
    decoding: "async",
    draggable: "false",
  });
  image.addEventListener("error", () => image.classList.add("missing"), { once: true });
  return image;
}

/**
 * "right answer: rank 3 | rank 41", of one panel or of two. Each rank opens its picture.
 * @param {{side: string, index: import("./api.js").Index, found: import("./api.js").SearchResponse}[]} shown
 */
export function answers(shown) {
  const most = Math.max(...shown.map(({ found }) => found.answers?.length ?? 0));
  if (!most) return null;
  const parts = [];
  for (const { side, index, found } of shown) {
    if (parts.length) parts.push(" | ");
    const known = [...(found.answers ?? [])].sort((a, b) => a.rank - b.rank);
    if (!known.length) parts.push(make("span", {}, "not known"));
    known.slice(0, 4).forEach((answer, place) => {
      if (place) parts.push(", ");
      const words = `${place ? "" : "rank "}${answer.rank.toLocaleString("en")}`;
      parts.push(
        make(
          "button",
          {
            class: "link", type: "button", "data-action": "answer", "data-side": side, "data-row": answer.row,
            "aria-label": `${place ? "rank " : ""}${words} under ${index.name}`, title: `under ${index.name}: open it`,
          },
          words,
        ),
      );
    });
    if (known.length > 4) parts.push(` and ${known.length - 4} more`);
  }
  return [`right answer${most > 1 ? "s" : ""}: `, ...parts];
}

/** "Best 48 of 300 pictures, 12 ms" */
export function status(shown) {
  const { index, found } = shown[0];
  const noun = index.modality === "image" ? "picture" : "text";
  const time = Math.max(...shown.map((one) => one.found.milliseconds));
  const some = found.results.length < found.total;
  const order = found.results[0]?.score === null ? "First" : "Best";
  const what = some ? `${order} ${found.results.length} of ${counted(found.total, noun)}` : counted(found.results.length, noun);
  return `${what}, ${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;
}
