/**
 * The session's side of proofs of possession (RFC 9449). The key, and what signs with it, are in `dpop.js`.
 *
 * 1. That part is loaded with the session, only where the option `dpop` asks for it. If it could not be loaded, the next
 *    request tries again.
 * 2. Tokens name the key that they are bound to. If this browser has lost it, only a new login helps: the server is not
 *    asked.
 * 3. A page that has forgotten the option ends nobody's session.
 * 4. A body that can be sent only once is not sent again for another proof either.
 *
 * @import { AdapterPlan, AdapterRequest, Options } from "./api.d.ts"
 * @import { Prover } from "./dpop.d.ts"
 * @import { SessionState } from "./state.d.ts"
 */
import { UnbrokenError, misconfigured, tryLater } from "./errors.js";
import { endSession } from "./refresh_rules.js";
import { load } from "./storage.js";
import { UNNAMED_KEY } from "./tokens.js";

/**
 * Prepare the proofs of a session. Throws misconfigured.
 * @param {SessionState} state @param {Exclude<Options["dpop"], false | undefined>} dpop
 */
export const prepareProofs = (state, dpop) => {
  if (dpop !== true && !dpop.openProver) throw misconfigured("dpop is true, or the module unbroken-dpop.js", "dpop");
  if (state.header !== "Authorization") throw misconfigured("a proof needs the header Authorization", "header");
  /** @type {Promise<Prover> | undefined} */
  let opened;
  const open = async () => {
    const { openProver } = dpop === true ? await import("./dpop.js").catch(notLoaded) : dpop;
    return openProver(state.key).catch((/** @type {Error} */ { message }) => {
      throw misconfigured(message, "dpop");
    });
  };
  state.openProofs = () =>
    (opened ??= open().catch((error) => {
      opened = undefined; // rule 1
      throw error;
    }));
  state.openProofs().catch(() => {});
};

/** @param {unknown} cause @returns {never} */
const notLoaded = (cause) => {
  throw tryLater("unbroken-dpop.js could not be loaded", { cause });
};

/**
 * Throws session_over if the tokens are bound to another key than this browser has.
 * @param {SessionState} state
 */
export const demandKey = async (state) => {
  if (!load(state).tokens?.jkt) return;
  if (!state.openProofs) throw misconfigured("the session is bound to a key", "dpop"); // rule 3
  const { thumbprint } = await state.openProofs();
  const record = load(state);
  const jkt = record.tokens?.jkt ?? UNNAMED_KEY;
  if (jkt !== UNNAMED_KEY && jkt !== thumbprint) endSession(state, record, "wrong_key"); // rule 2
};

/**
 * Send a request with a token that is bound to a key.
 * @template {object} Response @param {SessionState} state @param {AdapterRequest<Response>} request
 * @param {AdapterPlan} plan @param {string} token @param {boolean} isSpentOnce
 * @returns {Promise<Response>}
 */
export const sendProven = async ({ openProofs }, { method, send, head, discard }, plan, token, isSpentOnce) => {
  if (!method) throw misconfigured("a proof needs the method of the request", "method");
  const prover = await /** @type {NonNullable<typeof openProofs>} */ (openProofs)();
  return prover.send({
    method,
    url: plan.url,
    token,
    send: (proof, url) => send({ ...plan, url, headers: { ...plan.headers, DPoP: proof } }),
    head,
    discard,
    mayRepeat: (response) => {
      const why = () => new UnbrokenError("not_replayable", "the server asks for another proof", { refreshed: false });
      if (isSpentOnce) Object.assign(response, { whyNotReplayed: why() }); // rule 4
      return !isSpentOnce;
    },
  });
};

/**
 * Send a request of the module's own by the platform's fetch.
 * @param {Prover} prover @param {typeof globalThis.fetch} fetch @param {URL} url @param {RequestInit} init
 * @returns {Promise<Response>}
 */
export const fetchProven = (prover, fetch, { href }, init) =>
  prover.send({
    method: init.method ?? "GET",
    url: href,
    send: (DPoP) => fetch(href, { ...init, headers: { ...Object.fromEntries(/** @type {any} */ (init.headers)), DPoP } }),
    head: (response) => response,
    read: (response) => response.clone().text(),
  });
