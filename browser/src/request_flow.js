/**
 * One request on its way: what fetch and axios have in common.
 *
 *     authorize ── send ──┬── no challenge ──────────────────────────────▶ the response
 *                         └── challenge ──┬── body spent: refresh ───────▶ the server's own response
 *                                         └── newer tokens ── send again ▶ the response, whatever it is
 *
 * 1. A challenge to old tokens needs no refresh: the request is sent again with the current ones.
 * 2. A body that can be sent only once is sent with a fresh token, never twice and never empty. If it is rejected,
 *    the response says why it was not replayed, and whether the session was refreshed for the next request.
 * 3. The second response is final. An endpoint that rejects brand-new tokens is left alone for a while.
 * 4. The response of another origin, behind a redirect, is not about our token: it never saw it.
 * 5. A body is read only where the options ask for it, and only if it is JSON.
 *
 * @import { WaitOptions } from "./refresh_coordinator.js"
 * @import { SessionState } from "./state.d.ts"
 * @import { StoredRecord } from "./storage.js"
 *
 * @typedef {{ status: number, headers: Headers, url?: string }} ResponseHead
 */
/**
 * A request, as an adapter for an HTTP client shows it.
 * @template Response
 * @typedef {object} FlowRequest
 * @property {URL} url
 * @property {unknown} body
 * @property {number} [timeout] in seconds, of a wait for a refresh
 * @property {AbortSignal | null} [signal]
 * @property {(headers: Record<string, string>) => Promise<Response>} send
 * @property {(response: Response) => ResponseHead} head
 * @property {(response: Response) => Promise<string>} read the body, so that the caller can read it all the same
 * @property {(response: Response) => void} [discard] a response that nothing will read
 */
import { authorizationHeaders } from "./credentials.js";
import { UnbrokenError } from "./errors.js";
import { authorize, newerThan } from "./refresh_coordinator.js";
import { currentRecord } from "./refresh_rules.js";
import { challengesScheme, matches, parseJson } from "./response.js";
import { load } from "./storage.js";

const BRAND_NEW_SECONDS = 10;
const YOUNG_SECONDS = 30;
const LEFT_ALONE_SECONDS = 30;
const JSON_TYPE = /[/+]json\s*(;|$)/i;

/**
 * Send a request with the session's token.
 * @template {object} Response @param {SessionState} state @param {FlowRequest<Response>} request
 * @returns {Promise<Response>}
 */
export const sendAuthorized = async (state, request) => {
  if (state.visitors && !load(state).tokens) return request.send({});
  const isSpentOnce = request.body instanceof ReadableStream;
  const endpoint = request.url.origin + request.url.pathname;
  const sent = currentRecord(state, await authorize(state, isSpentOnce, request)); // rule 2
  const response = await request.send(authorizationHeaders(state, sent));
  if (!(await isChallenge(state, request, response)) || isLeftAlone(state, endpoint, sent)) return response;
  if (isSpentOnce) return withExplanation(state, response, sent, request);
  const newer = await newerThan(state, sent, request); // rule 1
  request.discard?.(response);
  const second = await request.send(authorizationHeaders(state, newer));
  settle(state, endpoint, newer, await isChallenge(state, request, second));
  return second; // rule 3
};

/**
 * @template {object} Response
 * @param {SessionState} state @param {FlowRequest<Response>} request @param {Response} response
 */
const isChallenge = async ({ challenge, scheme }, { url, head, read }, response) => {
  const { status, headers, url: from } = head(response);
  if (from && !from.startsWith(url.origin + "/")) return false; // rule 4
  if (!challenge) return status === 401 && challengesScheme(headers.get("WWW-Authenticate"), scheme ?? "");
  const isRead =
    challenge.field && challenge.status?.includes(status) !== false && headers.get("Content-Type")?.match(JSON_TYPE);
  return matches(challenge, status, isRead && parseJson(await read(response).catch(() => {}))); // rule 5
};

/**
 * Refresh for the next request, and add to a response why its request was not sent again.
 * @template {object} Response
 * @param {SessionState} state @param {Response} response @param {StoredRecord} sent @param {WaitOptions} options
 */
const withExplanation = async (state, response, sent, options) => {
  const refreshed = await newerThan(state, sent, options).then(Boolean, () => false);
  const whyNotReplayed = new UnbrokenError("not_replayable", "the body can be sent only once", { refreshed });
  return Object.assign(response, { whyNotReplayed }); // rule 2
};

/** @param {SessionState} state @param {string} endpoint @param {StoredRecord} sent */
const isLeftAlone = ({ leftAloneUntil }, endpoint, sent) =>
  isYounger(sent, YOUNG_SECONDS) && Date.now() < leftAloneUntil[endpoint]; // rule 3

/** @param {SessionState} state @param {string} endpoint @param {StoredRecord} sent @param {boolean} isRejected */
const settle = ({ leftAloneUntil }, endpoint, sent, isRejected) => {
  if (!isRejected) delete leftAloneUntil[endpoint];
  else if (isYounger(sent, BRAND_NEW_SECONDS)) leftAloneUntil[endpoint] = Date.now() + LEFT_ALONE_SECONDS * 1000;
};

/** @param {StoredRecord} record @param {number} seconds */
const isYounger = ({ tokens }, seconds) => Date.now() - (tokens?.receivedAt ?? 0) < seconds * 1000;
