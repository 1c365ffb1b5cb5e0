/**
 * One refresh at a time, alone among all tabs, and the requests that wait for it.
 *
 * 1. All requests of this page share one refresh (single flight). As soon as another tab has newer tokens, they go
 *    on.
 * 2. A GOOD token is used as it is. An AGEING one is used while a background refresh runs, an OLD one only if the
 *    refresh fails.
 * 3. A failure is remembered: until its time has come, requests fail without a refresh.
 * 4. Too many refreshes that are not due by age are a storm: something rejects tokens that are good. However short the
 *    lifetime is, those that are due by age do not count.
 * 5. What waits can leave at once (an aborted request, the end of the login), and never waits longer than
 *    `waitTimeout`.
 * 6. With cookies a new record may be seen before its access token, which another tab sends by the channel. Until then
 *    the record is as good as the one before: when the token comes, no refresh is needed.
 *
 * @import { SessionState } from "./state.d.ts"
 * @import { StoredRecord } from "./storage.js"
 *
 * @typedef {StoredRecord & { land: (record: StoredRecord) => void, result: Promise<StoredRecord> }} Flight a refresh that
 *   runs now, of the record it began with
 * @typedef {{ timeout?: number, signal?: AbortSignal | null }} WaitOptions `timeout` in seconds
 */
import { isUsable, recordStage } from "./credentials.js";
import { UnbrokenError, tryLater } from "./errors.js";
import { alone } from "./lock.js";
import { demandKey } from "./proofs.js";
import { currentRecord, refresh } from "./refresh_rules.js";
import { AGEING, GOOD, isStorm, pauseLeft } from "./schedule.js";
import { load } from "./storage.js";
import { emit } from "./tabs.js";

/**
 * Return a record to send a request with. Throws session_over, try_later, renewal_storm, or why the caller left.
 * @param {SessionState} state @param {boolean} fresh not one that is AGEING @param {WaitOptions} [options]
 */
export const authorize = async (state, fresh, options) => {
  await state.opened;
  if (FULL) await demandKey(state);
  const record = currentRecord(state);
  const stage = recordStage(state, record);
  const canBeUsed = isUsable(state, record);
  if (canBeUsed && stage === GOOD) return record; // rule 2
  const refreshed = sharedRefresh(state, canBeUsed ? record : { ...record, version: record.version - 1 }); // rule 6
  refreshed.catch(() => {});
  if (canBeUsed && stage === AGEING && !fresh) return record;
  try {
    return currentRecord(state, await wait(state, refreshed, options));
  } catch (error) {
    const current = currentRecord(state, record);
    if (isUsable(state, current)) return current;
    throw error;
  }
};

/**
 * Return a record with newer tokens than those of a request that was rejected: the current ones, or refreshed ones.
 * @param {SessionState} state @param {StoredRecord} sent @param {WaitOptions} options
 */
export const newerThan = async (state, sent, options) => {
  const current = currentRecord(state, sent);
  if (current.version !== sent.version && isUsable(state, current)) return current;
  return currentRecord(state, await wait(state, sharedRefresh(state, sent, true), options)); // rule 6
};

/**
 * Return the record of the refresh that all in this page share, started if there is none.
 * @param {SessionState} state @param {StoredRecord} seen @param {boolean} [isRejected] whether a challenge asks for it
 */
export const sharedRefresh = async (state, seen, isRejected = false) => {
  if (state.flight?.epoch === seen.epoch) return state.flight.result; // rule 1
  throwIfTooEarly(state, seen, isRejected);
  /** @type {(record: StoredRecord | Promise<StoredRecord>) => void} */
  let land = () => {};
  const landed = new Promise((/** @type {typeof land} */ resolve) => (land = resolve));
  const result = landed.finally(() => {
    if (state.flight !== mine) return;
    state.flight = undefined;
    emit(state, "status", {});
  });
  const mine = (state.flight = { ...seen, land, result });
  alone(state, () => refresh(state, seen)).then(land, (error) => land(Promise.reject(error))); // rule 1
  return result;
};

/** @param {SessionState} state @param {StoredRecord} seen @param {boolean} isRejected */
const throwIfTooEarly = (state, seen, isRejected) => {
  const { window: limit, refreshTimes } = state;
  const now = Date.now();
  const { failed } = load(state);
  const pause = pauseLeft(failed, now);
  if (failed && pause) {
    const { code, message } = failed;
    throw new UnbrokenError(code, message, { ...state.failure, retryAfter: pause }); // rule 3
  }
  if (!limit || (!isRejected && recordStage(state, seen) !== GOOD)) return; // rule 4
  if (isStorm(refreshTimes, limit, now)) {
    const error = new UnbrokenError("renewal_storm", "new tokens are rejected", { retryAfter: limit.interval });
    emit(state, "refresh", { state: "failed", error });
    throw error; // rule 4
  }
  refreshTimes.push(now);
};

/**
 * @param {SessionState} state @param {Promise<StoredRecord>} refreshed @param {WaitOptions} [options]
 * @returns {Promise<StoredRecord>}
 */
const wait = ({ waiting, waitTimeout }, refreshed, { timeout = waitTimeout, signal } = {}) =>
  new Promise((resolve, reject) => {
    const leave = () => reject(signal?.reason);
    const timer = setTimeout(() => reject(tryLater("the refresh takes too long")), timeout * 1000);
    waiting.add(reject); // rule 5
    signal?.addEventListener("abort", leave);
    if (signal?.aborted) leave();
    refreshed.then(resolve, reject).finally(() => {
      clearTimeout(timer);
      waiting.delete(reject);
      signal?.removeEventListener("abort", leave);
    });
  });
