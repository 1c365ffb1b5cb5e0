/**
 * The core alone, `unbroken-core.js`: for pages that count each byte, on https, of unbroken's own server.
 *
 * `FULL` is false in its build, which leaves out what other backends need, sessionStorage, forms and streams as bodies
 * that browsers treat differently, and `debug`. It does not look for mistakes in the options either.
 *
 * 1. Without the Web Locks API it would not be alone, so it does not begin.
 *
 * @import { CoreSession, Options } from "./api.d.ts"
 */
import { newState, openSession } from "./core.js";
import { UnbrokenError, misconfigured } from "./errors.js";

export { UnbrokenError };

/**
 * Create a session, for all requests of a page. Throws misconfigured.
 * @param {Options} [options] @returns {CoreSession}
 */
export const createSession = (options = {}) => {
  if (globalThis.document && !navigator.locks) throw misconfigured("this page has no Web Locks: use unbroken.js"); // rule 1
  return openSession(newState(options));
};
