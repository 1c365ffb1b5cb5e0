/**
 * unbroken: sessions with an access token and a refresh token that never break, for pages and workers. This file puts
 * the parts of a session together; what users see is described in `api.d.ts`.
 *
 *     session ── checks.js, database_lock.js, proofs.js (loads dpop.js where it is asked for)
 *             ── core.js             what follows is the core; `unbroken-core.js` is it alone
 *             ── login.js            log in, log out, import tokens
 *             ── fetch.js            an adapter, as is axios.js. They work by
 *                  request_flow.js       the steps of one request
 *                  refresh_coordinator.js  single flight, and what waits for it
 *                  refresh_rules.js      one refresh
 *                  credentials.js        the token and the requests it goes along with
 *             ── status.js           what applications see
 *             ── storage.js, tabs.js, lock.js     what tabs share
 *             ── transport.js                     the module's own requests
 *             ── options.js, tokens.js, response.js, schedule.js, errors.js     without state and I/O
 *
 * 1. Only this session can end the other ones of its user, so it does that before it ends itself.
 * 2. Whether there is a session is asked for when somebody wants to know.
 *
 * Each file states its rules at the top, and names the rule at the line that carries it out. What they share is in
 * `state.d.ts`.
 *
 * @import { Options, Session } from "./api.d.ts"
 */
import { attach } from "./axios.js";
import { checkOptions } from "./checks.js";
import { newState, openSession } from "./core.js";
import { resolve } from "./credentials.js";
import { holdInDatabase } from "./database_lock.js";
import { UnbrokenError, misconfigured, unexpectedResponse } from "./errors.js";
import { prepareProofs } from "./proofs.js";
import { identify, ready, subscribe } from "./status.js";

export { UnbrokenError };

/**
 * Create a session, for all requests of a page. Throws misconfigured.
 * @param {Options} [options] @returns {Session}
 */
export const createSession = (options = {}) => {
  checkOptions(options);
  const state = newState(options);
  state.holdWithoutLocks = holdInDatabase;
  if (options.dpop) prepareProofs(state, options.dpop);
  const session = openSession(state);
  const { fetch, login, logout } = session;
  /** @param {string} path */
  const post = (path) => fetch(state.base + path, { method: "POST" });

  const more = {
    attach: (/** @type {import("./api.d.ts").Axios} */ axios) => attach(session, axios),
    subscribe: (/** @type {() => void} */ listener) => subscribe(state, listener),

    login: async (/** @type {Parameters<Session["login"]>} */ ...who) => {
      await login(...who);
      await identify(state, fetch);
    },

    proof: async (/** @type {Parameters<Session["proof"]>} */ ...[method, url, token]) => {
      if (!state.openProofs) throw misconfigured("this session has no key", "dpop");
      return (await state.openProofs()).proof(method, resolve(`${url}`).href, token);
    },

    ticket: async () => {
      const response = await post("/ticket");
      if (!response.ok) throw unexpectedResponse("try_later", response);
      return (await response.json()).ticket;
    },

    logout: async ({ everywhere = false } = {}) => {
      if (everywhere && !state.isOwnServer) throw misconfigured("this backend has no such URL", "everywhere");
      const isElsewhere = !everywhere || (await post("/sessions/revoke-others").catch(() => undefined))?.ok; // rule 1
      return (await logout()) && !!isElsewhere;
    },
  };
  return /** @type {any} */ (
    Object.defineProperty(Object.assign(session, more), "ready", { get: () => ready(state, fetch) }) // rule 2
  );
};
