/**
 * Login and logout.
 *
 * 1. Both count at once, in all tabs: what waits under one login is never sent under another.
 * 2. A logout forgets the tokens first and revokes them then, so that it never fails.
 * 3. A login that sets cookies is alone among all tabs, like a refresh.
 * 4. A login takes along what the last one has left (`device_token`): the server does not count it with strangers'.
 *
 * @import { SessionState } from "./state.d.ts"
 */
import { unexpectedResponse } from "./errors.js";
import { alone } from "./lock.js";
import { matches, wordsOf } from "./response.js";
import { deviceToken, load, nextLogin, recordOf, rememberDevice, settled } from "./storage.js";
import { publish } from "./tabs.js";
import { readTokens } from "./tokens.js";
import { revoke, sendOwn } from "./transport.js";

/**
 * Take the tokens of a token response as a new login. Throws bad_answer.
 * @param {SessionState} state @param {unknown} body
 */
export const importTokens = (state, body) => {
  const tokens = readTokens(state, body);
  publish(state, recordOf(state, nextLogin(state), tokens)); // rule 1
  rememberDevice(state, /** @type {any} */ (body).device_token); // rule 4
};

/**
 * Log in. Throws access_denied, invalid_request, try_later, bad_answer, misconfigured.
 * @param {SessionState} state @param {string} username @param {string} password @param {object} [more] is sent along
 */
export const logIn = async (state, username, password, more) => {
  const { login, loginFailed, succeeded, usesCookies } = state;
  const request = () => sendOwn(state, login, { username, password, device_token: deviceToken(state), ...more });
  const response = await (usesCookies ? alone(state, request) : request()); // rule 3
  const { status, body } = response;
  const isRefused = FULL ? matches(loginFailed, status, body) : status === 401 || status === 403;
  if (!isRefused && (FULL ? matches(succeeded, status, body) : status === 200)) {
    importTokens(state, body);
    return settled(state);
  }
  const code = isRefused ? "access_denied" : status < 429 ? "invalid_request" : "try_later";
  const error = unexpectedResponse(code, response, { cause: body, reason: body?.reason ?? body?.error });
  error.message = wordsOf(body) || error.message;
  throw error;
};

/**
 * Log out. Resolves to whether the server confirmed it.
 * @param {SessionState} state
 */
export const logOut = async (state) => {
  const { tokens } = load(state);
  publish(state, { ...nextLogin(state), over: "logged_out" }); // rules 1 and 2
  return !!tokens && revoke(state, tokens);
};
