/**
 * The rules of one refresh.
 *
 * 1. The record is read again before and after the request: tokens that another tab has stored meanwhile are taken.
 * 2. The idempotency key is stored before the request is sent, and sent again with every try, so that another tab can
 *    finish what a dead one began.
 * 3. New tokens are stored before anything uses them, and only for the login they were requested for. Tokens that
 *    come after its end are revoked.
 * 4. Only a definite response ends a session. Everything else means: try later, and loses nothing.
 * 5. A refresh without a definite response is tried three times, the second time at once: a server that rotates
 *    strictly may accept a repetition only shortly after. A server that asks for a longer pause gets it.
 * 6. An OAuth error is one under any status, 200 included. The error repeats the server's words, but no token.
 *
 * @import { UnbrokenError } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 * @import { StoredRecord } from "./storage.js"
 * @import { Tokens } from "./tokens.js"
 */
import { isUsable } from "./credentials.js";
import { sessionOver, tryLater, unexpectedResponse } from "./errors.js";
import { sleep } from "./lock.js";
import { isObject, matches, valueAt, wordsOf } from "./response.js";
import { nextPause } from "./schedule.js";
import { initialRecord, isOutdatedCopy, load, nextLogin, recordOf, settled } from "./storage.js";
import { emit, notice, publish } from "./tabs.js";
import { readTokens } from "./tokens.js";
import { revoke, sendOwn } from "./transport.js";

const MAX_TRIES = 3;
const MAX_PAUSE_SECONDS = 2; // a longer one is the caller's to wait for
const MAX_WORDS = 300; // in letters
const IDENTIFIER = /^\w+$/;

/**
 * Return the newest record, of the login that a record belongs to. Throws session_over if there is no such login.
 * @param {SessionState} state @param {StoredRecord} [seen] without one: of any login
 */
export const currentRecord = (state, seen) => {
  const record = notice(state);
  if (!record.tokens) throw refusal(state, record);
  if (seen && record.epoch !== seen.epoch) throw sessionOver("other_login");
  return record;
};

/**
 * Return why there are no tokens. The first one who is told so was never logged in: listeners hear of it too.
 * @param {SessionState} state @param {StoredRecord} record
 */
const refusal = (state, record) => {
  const reason = record.over ?? "logged_out";
  if (record === initialRecord(state) && !state.isVisitor) {
    state.isVisitor = true;
    emit(state, "over", { reason, here: true });
  }
  return sessionOver(reason);
};

/**
 * Return a record with newer tokens, requested or taken from another tab. Throws session_over, try_later,
 * bad_answer.
 * @param {SessionState} state @param {StoredRecord} seen
 */
export const refresh = async (state, seen) => {
  await settled(state);
  let record = currentRecord(state, seen);
  if (isNewer(state, record, seen)) return record; // rule 1
  if (!state.usesCookies && !record.tokens?.refresh) return endSession(state, record, "no_refresh_token");
  if (isOutdatedCopy(state, record)) return endSession(state, record, "other_tab");
  if (!record.idempotencyKey) record = publish(state, { ...record, idempotencyKey: newIdempotencyKey() }); // rule 2
  await settled(state);
  emit(state, "refresh", { state: "started" });
  for (let tries = 1; ; tries++) {
    try {
      return await requestTokens(state, record);
    } catch (/** @type {any} */ error) {
      const current = currentRecord(state, record);
      if (isNewer(state, current, record)) return current; // rule 1
      if (error.code === "session_over") return endSession(state, record, error.reason, error.response); // rule 4
      if (error.code !== "try_later" || tries === MAX_TRIES || error.retryAfter > MAX_PAUSE_SECONDS) {
        emit(state, "refresh", { state: "failed", error });
        throw rememberFailure(state, current, error);
      }
      await sleep(Math.max(tries - 1, error.retryAfter)); // rule 5
      currentRecord(state, record);
    }
  }
};

const newIdempotencyKey = () =>
  `${globalThis.crypto?.getRandomValues(new Uint32Array(4)) ?? [Date.now(), Math.random(), Math.random()]}`;

/** @param {SessionState} state @param {StoredRecord} record @param {StoredRecord} seen */
const isNewer = (state, record, seen) => record.version > seen.version && isUsable(state, record);

/**
 * Send one refresh request (RFC 6749, section 6) and store its tokens.
 * @param {SessionState} state @param {StoredRecord} record
 */
const requestTokens = async (state, record) => {
  const { refresh, idempotencyHeader, usesCookies, endsSession, succeeded, tokens: paths } = state;
  const headers = idempotencyHeader ? { [idempotencyHeader]: `"${record.idempotencyKey}"` } : {};
  const response = await sendOwn(state, refresh, { refresh_token: record.tokens?.refresh }, headers);
  const { status, body } = response;
  const reason = body?.reason ?? "";
  if (FULL ? matches(endsSession, status, body) : status < 402 && body?.error === "invalid_grant")
    throw sessionOver(IDENTIFIER.test(reason) ? reason : "invalid_grant", { response }); // rule 4
  if (usesCookies && reason === "no_refresh_token") throw sessionOver("not_logged_in", { response });
  const isError = FULL && body?.error && !valueAt(body, paths.access_token ?? "access_token");
  if (isError || (FULL ? !matches(succeeded, status, body) : status !== 200))
    throw unexpectedResponse("try_later", response, {}, said(body, record.tokens?.refresh || " ")); // rule 6
  if (!isObject(body)) throw unexpectedResponse("try_later", response, {}, "no JSON object");
  const saved = await saveNewTokens(state, record, readTokens(state, body)); // rule 3
  await settled(state);
  return saved;
};

/** @param {any} body @param {string} token that the server may have repeated; it is left out */
const said = (body, token) => {
  const words = [body?.error, wordsOf(body)].filter(Boolean).join(": ");
  return words.replaceAll(token, " ").slice(0, MAX_WORDS);
};

/**
 * Store new tokens, unless the login is over or another tab has newer ones.
 * @param {SessionState} state @param {StoredRecord} seen @param {Tokens} fresh
 */
const saveNewTokens = async (state, seen, fresh) => {
  const { epoch, version, tokens } = load(state);
  if (!tokens || epoch !== seen.epoch) await revoke(state, fresh); // rule 3
  currentRecord(state, seen);
  // the cookie may belong to another login, of which this tab has not heard
  if (tokens?.sid && fresh.sid !== tokens.sid && state.usesCookies)
    return publish(state, recordOf(state, nextLogin(state), fresh));
  if (fresh.seq && tokens?.seq && fresh.seq <= tokens.seq) throw tryLater("the response has no newer tokens");
  const { refresh = tokens?.refresh, user = tokens?.user } = fresh;
  return publish(state, recordOf(state, { version: version + 1, epoch }, { ...fresh, refresh, user }));
};

/**
 * Forget the tokens, in all tabs. Always throws session_over.
 * @param {SessionState} state @param {StoredRecord} record @param {string} reason @param {any} [response] the server's
 * @returns {never}
 */
export const endSession = (state, { version, epoch }, reason, response) => {
  publish(state, { version: version + 1, epoch, over: reason });
  throw sessionOver(reason, { response });
};

/**
 * Store a failure, so that no tab repeats it at once, and return it.
 * @param {SessionState} state @param {StoredRecord} record @param {UnbrokenError} error
 */
const rememberFailure = (state, record, error) => {
  const { pauseSeconds = 1 } = record;
  error.retryAfter = Math.max(error.retryAfter, pauseSeconds);
  const { code, message, retryAfter: seconds } = error;
  const failed = { code, message, at: Date.now(), seconds };
  state.failure = error;
  publish(state, { ...record, pauseSeconds: nextPause(pauseSeconds), failed });
  return error;
};
