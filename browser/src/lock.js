/**
 * One lock for all tabs and workers: by the Web Locks API, or by a database where a page has none, as on plain http
 * (`database_lock.js`).
 *
 * It is held around a refresh, and around what else sets cookies; by nothing else.
 *
 * 1. Nothing waits for it without end: after a time the work is done without it. Then the stored idempotency key has
 *    to do.
 * 2. It takes a moment until other tabs can read what this one has written, on a busy machine a long one. So the lock
 *    is kept a little longer than the work.
 *
 * @import { SessionState } from "./state.d.ts"
 */
import { load } from "./storage.js";

const VISIBLE_AFTER_SECONDS = 0.5;
const WAIT_SHARE = 1.5; // of the time limit of one refresh

/** @param {number} seconds */
export const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/**
 * Do some work while no other tab does. Resolves as the work does, before the lock is free again.
 * @template Result @param {SessionState} state @param {() => Promise<Result>} work @returns {Promise<Result>}
 */
export const alone = (state, work) => {
  const { pageStorage, usesCookies, key, refreshTimeout, holdWithoutLocks } = state;
  const locks = globalThis.navigator?.locks;
  if ((!pageStorage && !usesCookies) || (!locks && !holdWithoutLocks)) return work();
  return new Promise((resolve) => {
    /** @type {Promise<Result> | undefined} */
    let running;
    const begin = () => {
      clearTimeout(timer);
      running ??= work();
      resolve(running);
      return running.catch(() => {});
    };
    const seconds = refreshTimeout * WAIT_SHARE;
    const timer = setTimeout(begin, seconds * 1000); // rule 1
    const hold = async () => {
      const { version } = load(state);
      await begin();
      if (load(state).version !== version) await sleep(VISIBLE_AFTER_SECONDS); // rule 2
    };
    (locks ? locks.request(key, hold) : /** @type {NonNullable<typeof holdWithoutLocks>} */ (holdWithoutLocks)(key, seconds, hold)).catch(begin);
  });
};
