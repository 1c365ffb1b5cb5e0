/**
 * The errors of this module: one class, told apart by `code`.
 *
 * A code is stable: programs compare it, messages are for people.
 * No message and no property holds a token or a password. Only `cause` and `response` hold what a server or the
 * platform said, and neither gets into JSON.
 *
 * @import { ErrorCode, ErrorDetails } from "./api.d.ts"
 */
import { retryAfter } from "./response.js";

/**
 * The codes and their meaning are in `api.d.ts`.
 * @type {typeof import("./api.d.ts").UnbrokenError}
 */
export const UnbrokenError = /** @type {any} */ (
  class extends Error {
    name = "UnbrokenError";
    retryAfter = 0;

    /** @param {ErrorCode} code @param {string} message @param {ErrorDetails} [details] */
    constructor(code, message, details) {
      super(message);
      Object.assign(this, details, { code });
    }

    toString() {
      const { name, code, message } = /** @type {any} */ (this);
      return `${name} ${code}: ${message}`;
    }

    toJSON() {
      return { ...this, message: this.message, cause: undefined, response: undefined, config: undefined };
    }
  }
);

/**
 * Return an error that says: nothing is lost, try again.
 * @param {string} message @param {ErrorDetails} [details]
 */
export const tryLater = (message, details) => new UnbrokenError("try_later", message, details);

/**
 * Return an error that says: the program has to be changed.
 * @param {string} message @param {string} [field] the name of the option
 */
export const misconfigured = (message, field) => new UnbrokenError("misconfigured", message, { field });

/**
 * Return an error that says: only a new login helps.
 * @param {string} reason @param {ErrorDetails} [details]
 */
export const sessionOver = (reason, details) =>
  new UnbrokenError("session_over", "please log in again", { ...details, reason });

/**
 * Return the same error for another request, with what is known of that one. Errors of the platform stay as they are.
 * @param {any} error @param {object} details
 */
export const errorWith = (error, details) =>
  error instanceof UnbrokenError ? new UnbrokenError(error.code, error.message, { ...error, ...details }) : error;

/**
 * Return an error for a response without what was requested.
 * @param {ErrorCode} code @param {{ status: number, headers: Headers, url: string }} response
 * @param {ErrorDetails} [details] @param {string} [words] the server's own
 */
export const unexpectedResponse = (code, response, details, words) => {
  const { status, headers, url } = response;
  const what = FULL && /html/.test(headers.get("Content-Type") ?? "") ? "a page of HTML" : words;
  return new UnbrokenError(code, [`${url} responded with status ${status}`, what].filter(Boolean).join(", "), {
    response,
    ...details,
    retryAfter: retryAfter(headers),
  });
};
