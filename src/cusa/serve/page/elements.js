// Elements without HTML in strings: whatever a caption holds, it stays text.

/**
 * Make an element. Attributes that start with "on" are listeners; null, undefined and false leave an attribute out.
 * @param {string} name @param {Object<string, unknown>} attributes @param {...(Node|string|number|null|false)} children
 */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** Replace what an element holds; null, undefined and false are left out. */
export const fill = (element, ...children) => element.replaceChildren(...nodes(children));

const nodes = (children) => children.filter((child) => child !== null && child !== false && child !== undefined).map(asNode);

const asNode = (child) => (child instanceof Node ? child : String(child));

/** One of the symbols at the top of index.html. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const [picture, use] = [document.createElementNS(space, "svg"), document.createElementNS(space, "use")];
  picture.setAttribute("class", "icon");
  picture.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  picture.append(use);
  return picture;
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** "1 picture", "2 pictures", "12,345 pictures". */
export const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
