/**
 * The record of a session: one text under one key, read and written whole.
 *
 * 1. Tokens and their version are one text, so that no tab ever sees one token of one pair and one of another.
 * 2. A storage that is denied, full or taken away is replaced by memory: the session goes on in this page. What is
 *    stored never stays behind what was spent: it makes room for the new text, or is removed. Each text is filled up
 *    to a round length, so that one that follows needs no more room.
 * 3. With cookies no token is stored. The access token stays in the memory of the pages, by the version it belongs to.
 * 4. A duplicated tab has a copy of sessionStorage, whose refresh token may be spent. So localStorage has the newest
 *    version of each login, and nothing else, until the session is over.
 * 5. With cookies there may be a session that no script knows of: one refresh tells.
 * 6. A device token outlives the session, so it is a text of its own. With cookies the server keeps it in one.
 * 7. A store of the caller's may take its time. It is waited for when the session is created, when another tab has
 *    written, before a refresh and after it.
 * 8. A worker has no page's storage, and says so at once.
 * 9. What is stored may be anything: a text that is no record counts as none.
 *
 * @import { ErrorCode, Store } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 * @import { Tokens } from "./tokens.js"
 *
 * @typedef {{ version: number, epoch: number }} Position `version` grows with each change, `epoch` names the login
 * @typedef {{ code: ErrorCode, message: string, at: number, seconds: number }} Failure not to be repeated
 *   for so many seconds after `at`, in milliseconds since the Unix epoch
 * @typedef {object} Content
 * @property {Tokens} [tokens]
 * @property {string} [over] why there are no tokens
 * @property {string} [idempotencyKey] of a refresh that has begun
 * @property {number} [pauseSeconds] how long to wait after the next failure
 * @property {Failure} [failed] the last refresh, which is not repeated before its time
 * @typedef {Position & Content} StoredRecord
 */
import { rememberToken } from "./credentials.js";
import { misconfigured } from "./errors.js";
import { isObject, parseJson } from "./response.js";

const ROUND_CHARS = 512;

/** @type {StoredRecord} */
const NOT_LOGGED_IN = { version: 0, epoch: 0, over: "not_logged_in" };
/** @type {StoredRecord} */
const UNKNOWN_SESSION = { version: 0, epoch: 0, tokens: { lifetime: 1, receivedAt: 0 } }; // rule 5

/**
 * Return the record of a session where nothing is stored.
 * @param {Pick<SessionState, "usesCookies">} state
 */
export const initialRecord = ({ usesCookies }) => (usesCookies ? UNKNOWN_SESSION : NOT_LOGGED_IN);

/**
 * Return where records are stored, or undefined where that is nowhere. Throws misconfigured.
 * @param {Pick<SessionState, "usesCookies" | "storage" | "store">} state @returns {Store | undefined}
 */
export const openStorage = ({ usesCookies, storage, store }) => {
  const page = /** @type {any} */ (globalThis);
  if (store) return store;
  if (FULL && /S/.test(storage) && page.WorkerGlobalScope)
    throw misconfigured(`a worker has no ${storage}: use "cookie", or a store of your own`, "storage"); // rule 8
  try {
    return page[usesCookies ? "localStorage" : storage];
  } catch {} // rule 2
};

/**
 * Return the newest record: the same object as long as nothing changes.
 * @param {SessionState} state
 */
export const load = (state) => {
  if (state.pageStorage) take(state, state.pageStorage.getItem(state.key));
  return state.record;
};

/**
 * Wait until a store that takes its time has written everything, and has read what others have written.
 * @param {SessionState} state
 */
export const settled = async ({ pageStorage, key }) => pageStorage?.sync?.(key); // rule 7

/** @param {SessionState} state @param {string | null} text that is stored */
const take = (state, text) => {
  if (text === state.text || text === "") return;
  state.text = text;
  const record = parseJson(text);
  note(state, isObject(record) && Number.isSafeInteger(record.version) ? record : initialRecord(state)); // rule 9
};

/**
 * Store a record. Use `publish`, which also tells the tabs.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const save = (state, record) => {
  const { key, pageStorage, record: before } = state;
  note(state, record);
  const json = JSON.stringify(record);
  state.text = json.padEnd(Math.ceil(json.length / ROUND_CHARS) * ROUND_CHARS); // rule 2
  const put = () => {
    if (FULL && state.storage === "sessionStorage") markVersion(record, key + (record.tokens ? record : before).epoch);
    pageStorage?.setItem(key, /** @type {string} */ (state.text)); // rule 1
  };
  try {
    put();
  } catch {
    makeRoom(state, put);
  }
};

/** @param {SessionState} state @param {() => void} put */
const makeRoom = (state, put) => {
  const { key, pageStorage } = state;
  try {
    pageStorage?.setItem(key, ""); // which other tabs take no notice of
    put();
  } catch {
    state.pageStorage = undefined; // rule 2
    pageStorage?.removeItem(key);
  }
};

/** @param {SessionState} state @param {StoredRecord} record */
const note = (state, record) => {
  state.record = record;
  rememberToken(state, record);
};

/**
 * Return a record of tokens.
 * @param {SessionState} state @param {Position} position @param {Tokens} tokens @returns {StoredRecord}
 */
export const recordOf = (state, position, tokens) => {
  if (!state.usesCookies) return { ...position, tokens };
  state.accessTokens = { [position.version]: tokens.access }; // rule 3
  return { ...position, tokens: { ...tokens, access: undefined } };
};

/**
 * Return the device token of the last login, or undefined.
 * @param {SessionState} state
 */
export const deviceToken = ({ pageStorage, key, device }) => pageStorage?.getItem(`${key} device`) ?? device; // rule 6

/**
 * Remember the device token of a login, if there is one.
 * @param {SessionState} state @param {unknown} token
 */
export const rememberDevice = (state, token) => {
  if (!token) return;
  state.device = `${token}`;
  try {
    state.pageStorage?.setItem(`${state.key} device`, state.device);
  } catch {} // rule 2
};

/**
 * Return the position of a new login, which is after all before.
 * @param {SessionState} state
 */
export const nextLogin = (state) => {
  const version = Math.max(load(state).version + 1 || 0, Date.now());
  return { version, epoch: version };
};

/**
 * Return whether this tab was duplicated and another tab has newer tokens.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const isOutdatedCopy = ({ pageStorage, storage, key }, { version, epoch }) =>
  FULL && pageStorage && storage === "sessionStorage" && Number(localStorage.getItem(key + epoch)) > version; // rule 4

/** @param {StoredRecord} record @param {string} name of the mark */
const markVersion = ({ tokens, over, version }, name) => {
  if (tokens)
    localStorage.setItem(name, `${version}`); // rule 4
  else if (over !== "other_tab") localStorage.removeItem(name);
};
