/**
 * The access token and the requests it goes along with.
 *
 * 1. A token is sent to the dialect's origins only, and not to the endpoints of the session itself.
 * 2. A header that the caller has set is left alone. If its value is or was the session's own token, the caller means
 *    the session: the newest token takes its place.
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
  const prefix = paths.prefix || scheme === null ? record.tokens?.prefix : scheme && scheme + " ";
  return { [header]: prefix + token };
};

/**
 * Remember the token of a record as the session's own.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const rememberToken = (state, record) => {
  state.ownValues.add(authorizationHeaders(state, record)[state.header]);
};

/**
 * Return whether a request is sent with the session's token.
 * @param {SessionState} state @param {URL} url @param {{ unbroken?: boolean }} options of the request
 * @param {string | null | undefined} value of its header
 */
export const isCovered = ({ origins, endpoints, ownValues }, { origin, pathname }, options, value) =>
  options.unbroken !== false &&
  origins.includes(origin) && // rule 1
  !endpoints.includes(origin + pathname) &&
  (!value || ownValues.has(value)); // rule 2

/**
 * Return whether browsers would send the token on when a redirect leads to another site.
 * @param {SessionState} state
 */
export const isForwarded = ({ header }) => header !== "Authorization";

/**
 * Return how the platform has to treat a redirect.
 * @param {SessionState} state @param {RequestRedirect | undefined} wish the caller's
 */
export const redirectMode = (state, wish) => (isForwarded(state) && wish !== "manual" ? "error" : wish); // rule 3
