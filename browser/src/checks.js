/**
 * Mistakes in the options.
 *
 * 1. A name or a word that does not exist is an error when the session is created, with the one that was meant. A
 *    list in the place of an object has names too: 0, 1 …
 * 2. A condition on a field needs values, and values need a field.
 * 3. A GET has no body to send anything in.
 *
 * @import { Options } from "./api.d.ts"
 */
import { misconfigured } from "./errors.js";
import { DEFAULTS } from "./options.js";

const WITHOUT_DEFAULT = [ "key", "refresh", "logout", "login", "challenge", "origins", "idempotencyHeader", "store", "fetch", "debug", "dpop"];
const REQUEST = ["url", "method", "encoding", "rename", "extra", "headers"];
const CONDITION = ["status", "field", "values", "negate"];
/** @type {Record<string, string[]>} */
const PARTS = {
  refresh: REQUEST,
  login: REQUEST,
  logout: REQUEST,
  challenge: CONDITION,
  succeeded: CONDITION,
  endsSession: CONDITION,
  loginFailed: CONDITION,
  tokens: ["access_token", "refresh_token", "expires_in", "refresh_seq", "token_type", "prefix", "user"],
  window: ["interval", "attempts"],
  storage: ["memory", "localStorage", "sessionStorage", "cookie"],
  encoding: ["json", "form", "query"],
};
/**
 * Throws misconfigured if there is a mistake in the options.
 * @param {Options} options
 */
export const checkOptions = (options) => check(options, [...Object.keys(DEFAULTS), ...WITHOUT_DEFAULT]);

/** @param {any} value @param {string[]} names that may be in it */
const check = (value, names) => {
  for (const name in value) {
    const inner = value[name];
    demandOneOf(names, name); // rule 1
    if (name in PARTS && inner != null)
      typeof inner === "object" ? check(inner, PARTS[name]) : demandOneOf(PARTS[name], `${inner}`); // rule 1
    if (PARTS[name] === CONDITION && !inner?.field !== !inner?.values)
      throw misconfigured(`${name} needs a field and values, or none of them`, name); // rule 2
    if (/^(get|head)$/i.test(inner?.method) && inner.encoding !== "query")
      throw misconfigured(`${name} needs the encoding "query": a GET has no body`, name); // rule 3
  }
};

/** @param {string[]} names @param {string} name */
const demandOneOf = (names, name) => {
  if (names.includes(name)) return;
  const pairs = (/** @type {string} */ word) =>
    [...word].filter((_, at) => RegExp(word.slice(at, at + 2), "i").test(name)).length / (word.length + name.length);
  const [nearest] = [...names].sort((one, other) => pairs(other) - pairs(one));
  throw misconfigured(`there is no '${name}': did you mean '${nearest}'?`, name);
};
