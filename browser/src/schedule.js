/**
 * When to refresh. Only arithmetic; times are in milliseconds since the Unix epoch, durations in seconds.
 *
 *     received ──────── GOOD ──────── AGEING ──────── OLD ──────── DEAD
 *                       use it        use it and      refresh      refresh
 *                                     refresh         first        first, never send it
 *
 * 1. The margins shrink with the lifetime, so that tokens of a few seconds cause no loop.
 * 2. Jitter makes the tabs of many users refresh at different times, and only ever earlier.
 * 3. A clock that was set back says nothing about the age: the token is AGEING.
 * 4. After a failure the next refresh waits: one second, two, four … thirty, or as long as the server asks for.
 *    Nothing makes it wait for more than an hour.
 * 5. A clock that was set back ends all waiting: what seems to happen in the future was long ago.
 *
 * @import { Failure } from "./storage.js"
 * @import { Tokens } from "./tokens.js"
 */
export const GOOD = 0;
export const AGEING = 1;
export const OLD = 2;
export const DEAD = 3;

const ADVISORY_SHARE = 0.2;
const MAX_ADVISORY_SECONDS = 300;
const MANDATORY_SHARE = 0.1;
const MAX_MANDATORY_SECONDS = 10;
const MAX_PAUSE_SECONDS = 30;
const MAX_FAILURE_SECONDS = 3600; // so much a server may ask for

/**
 * Return the stage of tokens: GOOD, AGEING, OLD or DEAD.
 * @param {Tokens | undefined} tokens @param {number} now @param {boolean} canRefresh @param {number} jitter in [0, 1)
 */
export const stageOf = (tokens, now, canRefresh, jitter) => {
  if (!tokens?.lifetime) return GOOD; // a challenge will tell
  const { lifetime, receivedAt } = tokens;
  const left = lifetime - (now - receivedAt) / 1000;
  const advisory = canRefresh ? Math.min(lifetime * ADVISORY_SHARE, MAX_ADVISORY_SECONDS) : 0; // rule 1
  const mandatory = Math.min(lifetime * MANDATORY_SHARE, MAX_MANDATORY_SECONDS, advisory);
  if (left <= mandatory) return left > 0 ? OLD : DEAD;
  const isAgeing = left <= advisory - (advisory - mandatory) * jitter * 0.5; // rule 2
  return isAgeing || left > lifetime ? AGEING : GOOD; // rule 3
};

/**
 * Return the seconds since a time.
 * @param {number} time @param {number} now
 */
export const secondsSince = (time, now) => (time > now ? Infinity : (now - time) / 1000); // rule 5

/**
 * Return the seconds until a failed refresh may be repeated, 0 if it may be now.
 * @param {Failure | undefined} failed @param {number} now
 */
export const pauseLeft = (failed, now) => {
  const seconds = failed ? Math.min(failed.seconds, MAX_FAILURE_SECONDS) - secondsSince(failed.at, now) : 0; // rule 4
  return seconds > 0 ? seconds : 0;
};

/**
 * Return the pause after the next failure.
 * @param {number} pauseSeconds after this one
 */
export const nextPause = (pauseSeconds) => Math.min(MAX_PAUSE_SECONDS, pauseSeconds * 2); // rule 4

/**
 * Return whether another refresh that is not due by age would be too many.
 * @param {number[]} times of the ones before, in order @param {{ interval: number, attempts: number }} limit
 * @param {number} now
 */
export const isStorm = (times, { interval, attempts }, now) =>
  secondsSince(times[times.length - attempts] ?? -Infinity, now) < interval;
