/**
 * The tokens of a token response.
 *
 * 1. A field is where the options say, else where RFC 6749 says. A token is printable ASCII, or the response is bad.
 * 2. With cookies the response may leave out the tokens, but it is still an object.
 * 3. The lifetime is `expires_in`, else `exp − iat` of a JWT, read without trusting it. Without either, only a
 *    challenge tells that the token has expired.
 * 4. Who is logged in is said by the response, or by the claims of a JWT, which are read without trusting them.
 * 5. What stands before the access token comes from the response where the options have a `prefix`, to the letter.
 * 6. Of the type `DPoP` it is bound to a key: the one that its claims name, if they can be read.
 *
 * @import { Settings } from "./state.d.ts"
 *
 * @typedef {object} Tokens as they are stored
 * @property {string} [access]
 * @property {string} [refresh]
 * @property {string} [prefix] what stands before the access token
 * @property {number} [lifetime] in seconds
 * @property {number} receivedAt in milliseconds since the Unix epoch
 * @property {number} [seq] the server's own count, where it sends one
 * @property {unknown} [user] who is logged in
 * @property {string} [jkt] the thumbprint of the key that they are bound to
 * @property {unknown} [sid] the server's id of the session, where it sends one
 */
import { UnbrokenError } from "./errors.js";
import { isObject, parseJson, positiveNumber, valueAt } from "./response.js";

export const UNNAMED_KEY = "?";
const PRINTABLE_ASCII = /^[ -~]+$/;

/**
 * Return the tokens of a token response. Throws bad_answer.
 * @param {Settings} settings @param {any} body @returns {Tokens}
 */
export const readTokens = ({ tokens: paths, usesCookies }, body) => {
  /** @param {keyof typeof paths} name */
  const pathOf = (name) => (FULL && paths[name]) || name; // rule 1
  /** @param {keyof typeof paths} name */
  const fieldOf = (name) => (FULL ? valueAt(body, pathOf(name)) : body?.[name]);
  /** @param {keyof typeof paths} name @param {boolean} [isRequired] @returns {string | undefined} */
  const textOf = (name, isRequired) => {
    const value = fieldOf(name) || undefined;
    if (value ? typeof value !== "string" || !PRINTABLE_ASCII.test(value) : isRequired)
      throw new UnbrokenError("bad_answer", `the response has no text at ${pathOf(name)}`, {
        field: isObject(body) ? pathOf(name) : "",
      });
    return value;
  };
  const prefix = () =>
    FULL && paths.prefix ? (fieldOf("prefix") === "" ? "" : textOf("prefix", true)) : `${fieldOf("token_type") || "Bearer"} `;
  const access = textOf("access_token", !usesCookies || !isObject(body)); // rule 2
  const claims = FULL && claimsOf(access);
  return {
    access,
    refresh: textOf("refresh_token"),
    prefix: access && prefix(), // rule 5
    lifetime: positiveNumber(fieldOf("expires_in")) ?? positiveNumber(claims && claims.exp - claims.iat), // rule 3
    receivedAt: Date.now(),
    seq: positiveNumber(fieldOf("refresh_seq")),
    user: fieldOf("user") ?? (claims || undefined), // rule 4
    sid: body?.sid,
    ...(FULL && /^dpop$/i.test(fieldOf("token_type")) && { jkt: claims?.cnf?.jkt ?? UNNAMED_KEY }), // rule 6
  };
};

/** @param {string | undefined} token */
const claimsOf = (token) => {
  try {
    const bytes = atob(/** @type {string} */ (token).split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    const claims = parseJson(decodeURIComponent(escape(bytes)));
    if (isObject(claims)) return claims;
  } catch {}
};
