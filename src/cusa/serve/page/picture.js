// A picture of the user's own: dropped anywhere, pasted, chosen or taken with the camera.

import { byId } from "./elements.js";

/** Pictures of this visit by number, so that back and forward find them. The address cannot hold them. */
const kept = new Map();
const MOST_KEPT = 20;

/** @typedef {{number: number, file: File, url: string}} Picture */

/** @returns {Picture|null} */
export const pictureOf = (number) => kept.get(number) ?? null;

/** @param {File} file @returns {Picture} */
export function keep(file) {
  const number = Math.max(0, ...kept.keys()) + 1;
  const picture = { number, file, url: URL.createObjectURL(file) };
  kept.set(number, picture);
  for (const [old, { url }] of kept) {
    if (kept.size <= MOST_KEPT) break;
    URL.revokeObjectURL(url);
    kept.delete(old);
  }
  return picture;
}

/** @param {(file: File) => void} found called with each picture that the user gives */
export function listen(found) {
  for (const id of ["file", "camera"])
    byId(id).addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = ""; // the same file can be chosen again
      if (file) found(file);
    });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (!file) return;
    event.preventDefault();
    found(file);
  });
  listenToDrops(found);
}

function listenToDrops(found) {
  let depth = 0; // enter and leave come for every element that the pointer crosses
  const brings = (event) => event.dataTransfer?.types.includes("Files");
  const show = (change) => {
    depth = Math.max(0, depth + change);
    byId("drop").hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => brings(event) && show(1));
  addEventListener("dragleave", (event) => brings(event) && show(-1));
  addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("drop", (event) => {
    show(-depth);
    const [file] = event.dataTransfer?.files ?? [];
    if (!brings(event)) return;
    event.preventDefault();
    if (file) found(file);
  });
}
