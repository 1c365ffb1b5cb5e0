/**
 * Reading of HTTP responses: JSON, conditions, challenges, Retry-After. No state and no I/O.
 *
 * 1. A body comes from outside: whatever it holds, reading it raises nothing.
 * 2. A condition compares values as texts, so that 401 and "401" are the same.
 * 3. A 401 is about our token if it challenges `Bearer` or our scheme, or has no challenge at all (RFC 6750, section
 *    3). A new token does not help against `insufficient_scope` and `invalid_request`, nor against a proof that is
 *    refused.
 * 4. A server may ask for a pause of up to an hour. A date is compared with the response's own date, so that the
 *    clocks of client and server need not agree.
 *
 * @import { ResponseMatch } from "./api.d.ts"
 */

const MAX_PAUSE_SECONDS = 3600;

/**
 * Return the value of a JSON text, undefined for any other text.
 * @param {string | null | undefined | void} text
 */
export const parseJson = (text) => {
  try {
    return JSON.parse(/** @type {string} */ (text)); // rule 1
  } catch {}
};

/** @param {any} value */
export const isObject = (value) => Object(value) === value && !Array.isArray(value);

/**
 * Return what a server says to people, or to developers, in the body of a response.
 * @param {any} body
 */
export const wordsOf = (body) =>
  [body?.error_description, body?.message, body?.msg].find((words) => words && typeof words === "string") ?? "";

/**
 * Return the value at a dotted path, undefined where there is none.
 * @param {any} body @param {string} path
 */
export const valueAt = (body, path) => path.split(".").reduce((parent, name) => parent?.[name], body);

/**
 * Return a positive number, which may come as a text, or undefined.
 * @param {any} value
 */
export const positiveNumber = (value) => {
  const number = parseFloat(value);
  return number > 0 && number < Infinity ? number : undefined;
};

/**
 * Return whether a response fulfils a condition.
 * @param {ResponseMatch} condition @param {number} code @param {unknown} [body] parsed
 */
export const matches = ({ status, field, values = [], negate = false }, code, body) =>
  (!status || status.includes(code)) &&
  (!field || (isObject(body) && values.map(String).includes(String(valueAt(body, field))) !== negate)); // rule 2

/**
 * Return whether a `WWW-Authenticate` header rejects a token that was sent under a scheme.
 * @param {string | null} header @param {string} scheme
 */
export const challengesScheme = (header, scheme) => {
  // rule 3: quoted texts may hold anything, also the name of a scheme; only the error's counts
  const plain = (header ?? "bearer").replace(/error="(\w+)"/g, "error=$1").replace(/"(\\.|[^"\\])*"/g, "");
  if (FULL && /error=(use_dpop|invalid_dpop)/.test(plain)) return false;
  return (
    RegExp(`(^|[ ,])(bearer|${scheme})([ ,]|$)`, "i").test(plain) && !/error=(insufficient|invalid_req)/.test(plain)
  );
};

/**
 * Return the seconds that a response asks clients to wait, 0 if it does not say.
 * @param {Headers} headers
 */
export const retryAfter = (headers) => {
  const secondsOf = (/** @type {string} */ name) => Date.parse(headers.get(name) ?? "") / 1000;
  const pause =
    positiveNumber(headers.get("Retry-After")) ?? positiveNumber(secondsOf("Retry-After") - secondsOf("Date"));
  return Math.min(pause ?? 0, MAX_PAUSE_SECONDS); // rule 4
};
