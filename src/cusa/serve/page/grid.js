// The justified grid: rows of pictures of one height, as wide as the panel; and moving through it with the arrows.

const NARROWEST = 0.5; // of width to height: what is narrower or wider is shown with room around it
const WIDEST = 2.4;

/**
 * Give every tile its width and every picture its height. Sizes are known before the pictures are, so nothing moves
 * when they arrive.
 * @param {HTMLElement} list whose children have data-ratio, the width of a picture by its height
 */
export function justify(list) {
  const room = Math.floor(list.getBoundingClientRect().width); // clientWidth may be rounded up
  const tiles = [...list.children];
  if (!room || !tiles.length) return;
  const gap = Number.parseFloat(getComputedStyle(list).columnGap) || 0;
  const goal = room < 260 ? 92 : room < 520 ? 116 : room < 800 ? 140 : 164;
  let row = [];
  let ratios = 0;
  let height = goal;
  const place = () => row.forEach((tile) => size(tile, height));
  for (const tile of tiles) {
    const ratio = Math.min(WIDEST, Math.max(NARROWEST, Number(tile.dataset.ratio) || 1));
    const fits = (room - gap * row.length) / (ratios + ratio);
    const before = row.length ? (room - gap * (row.length - 1)) / ratios : Infinity;
    // A row is full where one more picture would take it further from the height that is wanted.
    if (row.length && Math.abs(before - goal) < Math.abs(fits - goal) && before < goal * 1.6) {
      height = before;
      place();
      [row, ratios] = [[], 0];
    }
    row.push(tile);
    tile.dataset.shown = String(ratio);
    ratios += ratio;
  }
  const last = (room - gap * (row.length - 1)) / ratios;
  height = last <= goal * 1.25 ? last : Math.min(last, height); // a short last row is as high as the row above it
  place();
}

function size(tile, height) {
  // Rounded down, so that a row never wraps for a fraction of a pixel.
  tile.style.setProperty("--width", `${Math.floor(Number(tile.dataset.shown) * height * 100) / 100 - 0.02}px`);
  tile.style.setProperty("--height", `${Math.floor(height * 100) / 100}px`);
}

/**
 * The element that lies next to another in a direction.
 * @param {HTMLElement[]} all in reading order @param {HTMLElement} from
 * @param {"ArrowLeft"|"ArrowRight"|"ArrowUp"|"ArrowDown"} key
 */
export function neighbour(all, from, key) {
  const here = from.getBoundingClientRect();
  const [x, y] = [here.left + here.width / 2, here.top];
  const sideways = key === "ArrowLeft" || key === "ArrowRight";
  const sign = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  let [best, least] = [null, Infinity];
  for (const other of all) {
    if (other === from) continue;
    const box = other.getBoundingClientRect();
    const [right, down] = [box.left + box.width / 2 - x, box.top - y];
    const [along, across] = sideways ? [right * sign, Math.abs(down)] : [down * sign, Math.abs(right)];
    if (along < 8 || (sideways && across > here.height / 2)) continue;
    const distance = sideways ? along : along * 4 + across;
    if (distance < least) [best, least] = [other, distance];
  }
  // Beyond the end of a row lies the next row of the same list.
  if (!best && sideways) {
    const list = all.filter((other) => other.closest("ol") === from.closest("ol"));
    best = list[list.indexOf(from) + sign] ?? null;
  }
  return best;
}
