/**
 * The errors of this module: one class, told apart by `code`.
 *
 * A code is stable: programs compare it, messages are for people.
 * No message and no property holds a token or a password. Only `cause` holds what a server or the platform said.
 *
 * @import { ErrorCode, ErrorDetails } from "./api.d.ts"
 */
import { retryAfter } from "./response.js";

/** The codes and their meaning are in `api.d.ts`. */
export class UnbrokenError extends Error {
  /** @type {string | undefined} */
  reason;
  /** @type {string | undefined} */
  field;
  /** @type {boolean | undefined} */
  refreshed;
  retryAfter = 0;

  /** @param {ErrorCode} code @param {string} message @param {ErrorDetails} [details] */
  constructor(code, message, details) {
    super(message);
    this.code = code;
    Object.assign(this, details);
  }
}

/**
 * Return an error that says: nothing is lost, try again.
 * @param {string} message @param {ErrorDetails} [details]
 */
export const tryLater = (message, details) => new UnbrokenError("try_later", message, details);

/**
 * Return an error that says: only a new login helps.
 * @param {string} reason
 */
export const sessionOver = (reason) => new UnbrokenError("session_over", `log in again: ${reason}`, { reason });

/**
 * Return an error for a response without what was requested.
 * @param {ErrorCode} code @param {{ status: number, headers: Headers }} response @param {ErrorDetails} [details]
 * @param {string} [words] the server's own
 */
export const unexpectedResponse = (code, { status, headers }, details, words) =>
  new UnbrokenError(code, [`the server responded with status ${status}`, words].filter(Boolean).join(", "), {
    ...details,
    retryAfter: retryAfter(headers),
  });
