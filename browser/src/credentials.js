/**
 * The access token and the requests it goes along with.
 *
 * 1. A token is sent to the dialect's origins only, and not to the endpoints of the session itself.
 * 2. A header that the caller has set is left alone. If its value is or was the session's own token, the caller means
 *    the session: the newest token takes its place. The last hundred are known.
 * 3. Browsers send every header but `Authorization` on when a redirect leads to another site. With a header of
 *    another name no redirect is followed, unless the caller handles it.
 * 4. The URL of a request is relative to what the platform's own would be, `<base>` included.
 * 5. Requests that have their token in a cookie carry the header that only scripts can send.
 *
 * @import { SessionState } from "./state.d.ts"
 * @import { StoredRecord } from "./storage.js"
 */
import { DEAD, stageOf } from "./schedule.js";
import { SCRIPT_HEADERS } from "./transport.js";

const MAX_OWN_VALUES = 100;

/**
 * Return the URL of a request of the page's.
 * @param {string} url
 */
export const resolve = (url) =>
  new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href ?? "http://localhost"); // rule 4

/**
 * Return how old the tokens of a record are: GOOD, AGEING, OLD or DEAD.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const recordStage = ({ usesCookies, jitter }, { tokens }) =>
  stageOf(tokens, Date.now(), usesCookies || !!tokens?.refresh, jitter);

/**
 * Return the access token of a record, "" where this page has none.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const accessToken = ({ accessTokens }, { tokens, version }) => tokens?.access ?? accessTokens[version] ?? "";

/**
 * Return whether a request can be sent with a record: its token has not expired, and this page has it.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const isUsable = (state, record) =>
  recordStage(state, record) < DEAD && (!record.tokens?.prefix || !!accessToken(state, record));

/**
 * Return the headers that authorize a request.
 * @param {SessionState} state @param {StoredRecord} record @returns {Record<string, string>}
 */
export const authorizationHeaders = (state, record) => {
  const { header, scheme, tokens: paths, usesCookies } = state;
  const token = accessToken(state, record);
  if (!token) return usesCookies ? SCRIPT_HEADERS : {}; // rule 5
  if (!FULL) return { Authorization: `Bearer ${token}` };
  if (record.tokens?.jkt) return { Authorization: `DPoP ${token}` };
  const prefix = paths.prefix || scheme === null ? record.tokens?.prefix : scheme && scheme + " ";
  return { [header]: prefix + token };
};

/**
 * Remember the token of a record as the session's own.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const rememberToken = (state, record) => {
  const { header, ownValues } = state;
  ownValues.add(authorizationHeaders(state, record)[header]);
  if (ownValues.size > MAX_OWN_VALUES) ownValues.delete([...ownValues][0]);
};

/**
 * Return whether a request is sent with the session's token.
 * @param {SessionState} state @param {URL} url @param {boolean | undefined} unbroken as in the caller's options
 * @param {string | null | undefined} value of its header
 */
export const isCovered = ({ origins, endpoints, ownValues }, { origin, pathname }, unbroken, value) =>
  unbroken !== false &&
  origins.includes(origin) && // rule 1
  !endpoints.includes(origin + pathname) &&
  (!value || ownValues.has(value)); // rule 2

/**
 * Return how the platform has to treat a redirect, undefined where it may do as it likes.
 * @param {SessionState} state @param {RequestRedirect | undefined} wish the caller's
 * @returns {RequestRedirect | undefined}
 */
export const redirectMode = ({ header }, wish) =>
  !FULL || header === "Authorization" ? undefined : wish === "manual" ? wish : "error"; // rule 3
