// One result large: the picture, everything the data say about it, and the way on.

import { pictureAddress } from "./api.js";
import { fill, icon, make } from "./elements.js";
import { nameOf, picture, sameText, scoreText } from "./results.js";

/**
 * @param {HTMLDialogElement} dialog
 * @param {import("./api.js").Result} result
 * @param {{place: number|null, ranks: {name: string, text: string}[], previous: boolean, next: boolean,
 *   act: (action: string) => void}} context
 */
export function show(dialog, result, context) {
  const name = nameOf(result);
  const button = (action, symbol, label, enabled = true) =>
    make("button", { class: "button quiet round", type: "button", "aria-label": label, title: label, disabled: !enabled,
      "data-key": action, onclick: () => context.act(action) }, icon(symbol));
  const kept = document.activeElement?.dataset?.key; // the arrows of the dialog keep the focus when it shows the next
  fill(
    dialog,
    make("div", { class: "bar" },
      button("previous", "back", "Previous result", context.previous),
      button("next", "next", "Next result", context.next),
      make("span", { class: "grow" }),
      button("close", "close", "Close")),
    make("div", { class: "sheet" },
      result.image && make("a", { class: "large", href: pictureAddress(result.image), target: "_blank", rel: "noopener", title: "Open the picture alone" },
        large(result, name)),
      make("div", { class: "about" },
        make("h2", { id: "detail-title" }, name),
        result.captions.length > 1 && make("ul", { class: "captions", role: "list" }, ...result.captions.slice(1).map((caption) => make("li", {}, caption))),
        result.correct === true && make("p", { class: "mark" }, icon("tick"), "right answer"),
        result.same_as && make("p", { class: "twin" }, `It is ${sameText(result.same_as)}.`),
        make("dl", {}, ...facts(result, context).map(([term, ...values]) =>
          make("div", {}, make("dt", {}, term), ...values.map((value) => make("dd", {}, value))))),
        make("div", { class: "actions" },
          make("button", { class: "button strong", type: "button", "data-key": "like", onclick: () => context.act("like") }, icon("like"), "More like this")))),
  );
  if (!dialog.open) dialog.showModal();
  const focused = kept && dialog.querySelector(`[data-key="${kept}"]:not(:disabled)`);
  (focused || dialog.querySelector('[data-key="like"]')).focus({ preventScroll: true });
}

/** At most twice its own size: enlarged further, a small picture is a blur. */
function large(result, name) {
  const image = picture(result, 0, name);
  image.style.setProperty("max-width", `min(100%, ${2 * result.width}px)`);
  return image;
}

function facts(result, context) {
  const rows = [];
  if (result.score !== null) rows.push(["score", scoreText(result.score)]);
  for (const { name, text } of context.ranks) rows.push([name, text]);
  rows.push(["item", result.item]);
  for (const [column, value] of Object.entries(result.columns ?? {}))
    if (value !== null && value !== "" && value !== undefined)
      rows.push([column, ...(Array.isArray(value) ? value : [value]).map((one) => typeof one === "object" ? JSON.stringify(one) : String(one))]);
  if (result.width) rows.push(["size", `${result.width} × ${result.height}`]);
  return rows;
}
