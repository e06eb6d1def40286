// What the page asks the server for. Every answer and every error of the server passes through here.

/**
 * @typedef {object} Index      GET api/indexes gives a list of these, in the order in which they were named
 * @property {string} name
 * @property {number} rows
 * @property {string} model      what answers the queries, in words
 * @property {"image"|"text"} modality   of the gallery
 * @property {string} fingerprint  changes with every rebuild
 * @property {Object<string, {value: string, count: number}[]>} filters   values of the columns, most frequent first
 * @property {boolean} has_answers   whether the right answers of some texts are known
 * @property {string[]} examples  some captions of the index, which make good first queries
 *
 * @typedef {object} Result
 * @property {number} row
 * @property {string} item       unique in its index, and the same in every index of the same pictures
 * @property {number|null} score  cosine; null where nothing was searched for
 * @property {string[]} captions
 * @property {string|null} image  address of the picture; null for a text. its field height asks for a smaller one
 * @property {number|null} width  of the picture, in pixels
 * @property {number|null} height
 * @property {boolean|null} correct   null where the right answers are not known
 * @property {{row: number, item: string, kind: "same"|"near"}|null} same_as   an earlier result, the same or nearly
 * @property {Object<string, unknown>} columns   all other columns of items.parquet
 *
 * @typedef {object} SearchResponse       GET or POST api/search
 * @property {{like: Result|null}} query   like: the item that `like` or `like_item` names
 * @property {Result[]} results
 * @property {{row: number, item: string, rank: number}[]|null} answers   ranks (from 1) among all rows, filtered or not;
 *   null where they are not known, and in a large index, which is asked with `answers`
 * @property {number} total      how many items pass the filters
 * @property {number} milliseconds
 * @property {string[]} [unknown_texts]   texts of the query that the model has no word for; absent if there are none
 */

/** An error of the server, as a sentence. */
export class ServerError extends Error {
  /** @param {string} sentence @param {number} status of HTTP; 0 where the server was not reached @param {number} wait seconds */
  constructor(sentence, status, wait = 0) {
    super(sentence);
    this.status = status;
    this.wait = wait;
  }
}

/** An address of the server, also where it is mounted below a path of another. */
export const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;

/** The address of a picture; with a height, of a smaller copy that is at least so high. */
export function pictureAddress(path, height) {
  const found = new URL(address(path));
  if (height) found.searchParams.set("height", String(height));
  return found.href;
}

/** @returns {Promise<Index[]>} */
export const indexes = () => call("api/indexes");

/** One item of an index, as a result without a score. @returns {Promise<Result>} */
export const item = (index, row, signal) => call(`api/indexes/${encodeURIComponent(index)}/items/${row}`, { signal });

/** Ranks of the right answers to a text, null where the data know none. */
export const answers = async (index, q, signal) =>
  (await call(`api/indexes/${encodeURIComponent(index)}/answers?${new URLSearchParams({ q })}`, { signal })).answers;

/** Give the server the token; it answers with a cookie, which pictures need too. */
export const giveToken = (token) => call("api/token", { method: "POST", body: new URLSearchParams({ token }) });

/**
 * @param {{index: string, q: string, not: string[], like: string, weight: number, top: number,
 *   filters: Object<string, string[]>, file: Blob|null}} query
 * @returns {Promise<SearchResponse>}
 */
export function search(query, signal) {
  const fields = [["index", query.index], ["top", query.top]];
  if (query.q) fields.push(["q", query.q]);
  for (const text of query.not) fields.push(["not", text]);
  if (query.like) fields.push(["like_item", query.like]);
  if (query.q && (query.like || query.file)) fields.push(["weight", query.weight]);
  for (const [column, values] of Object.entries(query.filters))
    for (const value of values) fields.push([`filter.${column}`, value]);
  if (!query.file) return call(`api/search?${new URLSearchParams(fields)}`, { signal });
  const form = new FormData();
  for (const [name, value] of fields) form.append(name, value);
  form.append("file", query.file, query.file.name || "picture");
  return call("api/search", { method: "POST", body: form, signal });
}

function unreached(body) {
  if (!navigator.onLine) return "This device is offline.";
  const size = body instanceof FormData && body.get("file") instanceof Blob ? body.get("file").size / 2 ** 20 : 0;
  const large = size > 8 ? ` The picture has ${Math.round(size)} MB; it may be more than the server takes.` : "";
  return `The server cannot be reached. Is it still running?${large}`;
}

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(unreached(options.body), 0);
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok) return body;
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  throw new ServerError(body?.error || `The server answered ${answer.status}.`, answer.status, wait);
}
