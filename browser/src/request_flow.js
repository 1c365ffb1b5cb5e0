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
 * 6. A response of the server's is never thrown away: where no refresh helps it is the caller's, as when good tokens
 *    are rejected again and again, or it goes along with the error.
 * 7. Tokens that are bound to a key go along with a proof. A response that asks for another proof is no challenge.
 *
 * @import { AdapterPlan, AdapterRequest } from "./api.d.ts"
 * @import { WaitOptions } from "./refresh_coordinator.js"
 * @import { SessionState } from "./state.d.ts"
 * @import { StoredRecord } from "./storage.js"
 */
import { accessToken, authorizationHeaders, isCovered, redirectMode, resolve } from "./credentials.js";
import { UnbrokenError, errorWith } from "./errors.js";
import { sendProven } from "./proofs.js";
import { authorize, newerThan } from "./refresh_coordinator.js";
import { currentRecord } from "./refresh_rules.js";
import { challengesScheme, matches, parseJson } from "./response.js";
import { secondsSince } from "./schedule.js";
import { load } from "./storage.js";
import { trace } from "./tabs.js";

const BRAND_NEW_SECONDS = 10;
const YOUNG_SECONDS = 30;
const LEFT_ALONE_SECONDS = 30;
const JSON_TYPE = /[/+]json\s*(;|$)/i;

/**
 * Send a request, with the session's token if it is for the session's backend.
 * @template {object} Response @param {SessionState} state @param {AdapterRequest<Response>} request
 * @returns {Promise<Response>}
 */
export const sendAuthorized = async (state, request) => {
  const { header, usesCookies, visitors } = state;
  const url = resolve(`${request.url}`);
  const endpoint = url.origin + url.pathname;
  await state.opened;
  const isOurs = isCovered(state, url, request.unbroken, request.header?.(header));
  if (!isOurs || (visitors && !load(state).tokens)) {
    trace(state, "no token", endpoint);
    return request.send();
  }
  const isSpentOnce = !!globalThis.ReadableStream && request.body instanceof ReadableStream;
  const sent = currentRecord(state, await authorize(state, isSpentOnce, request)); // rule 2
  /** @type {(record: StoredRecord) => AdapterPlan} */
  const planOf = (record) => ({
    url: url.href,
    headers: authorizationHeaders(state, record),
    redirect: redirectMode(state, request.redirect),
    ...(usesCookies && { credentials: "include" }),
  });
  const send = (/** @type {StoredRecord} */ record) =>
    FULL && record.tokens?.jkt
      ? sendProven(state, request, planOf(record), accessToken(state, record), isSpentOnce) // rule 7
      : request.send(planOf(record));
  const response = await send(sent);
  if (!(await isChallenge(state, url, request, response)) || isLeftAlone(state, endpoint, sent)) return response;
  trace(state, "challenge", endpoint);
  if (isSpentOnce) return withExplanation(state, response, sent, request);
  const newer = await newerThan(state, sent, request).catch((error) => {
    if (error.code !== "renewal_storm") throw errorWith(error, { response }); // rules 1 and 6
  });
  if (!newer) return response;
  request.discard?.(response);
  const second = await send(newer);
  settle(state, endpoint, newer, await isChallenge(state, url, request, second));
  return second; // rule 3
};

/**
 * @template {object} Response
 * @param {SessionState} state @param {URL} own @param {AdapterRequest<Response>} request @param {Response} response
 */
const isChallenge = async ({ challenge, scheme }, own, { head, read }, response) => {
  const { status, headers, url: from } = head(response);
  if (from && !from.startsWith(own.origin + "/")) return false; // rule 4
  if (!FULL || !challenge)
    return status === 401 && challengesScheme(headers.get("WWW-Authenticate"), (FULL && `${scheme || "bearer"}|dpop`) || "bearer");
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
const isLeftAlone = ({ rejectedAt }, endpoint, sent) =>
  isYounger(sent, YOUNG_SECONDS) && secondsSince(rejectedAt[endpoint], Date.now()) < LEFT_ALONE_SECONDS; // rule 3

/** @param {SessionState} state @param {string} endpoint @param {StoredRecord} sent @param {boolean} isRejected */
const settle = ({ rejectedAt }, endpoint, sent, isRejected) => {
  if (!isRejected) delete rejectedAt[endpoint];
  else if (isYounger(sent, BRAND_NEW_SECONDS)) rejectedAt[endpoint] = Date.now();
};

/** @param {StoredRecord} record @param {number} seconds */
const isYounger = ({ tokens }, seconds) => secondsSince(tokens?.receivedAt ?? 0, Date.now()) < seconds;
