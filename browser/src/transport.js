/**
 * The module's own requests: refresh, login, logout.
 *
 * 1. They carry no access token in a header and run through no interceptor: they use the fetch that the page had when
 *    the session was created.
 * 2. No cache keeps them, no redirect is followed, and each has a time limit. The limit counts from the call: while
 *    the browser has no free connection, the request waits in the browser.
 * 3. A login or logout goes on when the user leaves the page. So does everything that sets cookies.
 * 4. Browsers do not tell scripts why there is no response, so the error names what it may be.
 * 5. Only scripts can send the header `X-Unbroken`: with cookies it shows the server that no other site is behind a
 *    request.
 * 6. Each has a proof, where the session has a key.
 *
 * @import { RequestTemplate } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 * @import { Tokens } from "./tokens.js"
 *
 * @typedef {{ status: number, headers: Headers, body: any, url: string }} Reply a response, its body parsed
 */
import { misconfigured, tryLater } from "./errors.js";
import { fetchProven } from "./proofs.js";
import { parseJson } from "./response.js";

/** @type {Record<string, string>} */
export const SCRIPT_HEADERS = { "X-Unbroken": "1" }; // rule 5

/**
 * Send a request of the module's own. Throws misconfigured without a URL, and try_later without a response.
 * @param {SessionState} state @param {RequestTemplate} template
 * @param {Record<string, any>} values empty ones are left out
 * @param {Record<string, string>} [refreshHeaders] of a refresh, which ends with the page
 * @returns {Promise<Reply>}
 */
export const sendOwn = async (state, template, values, refreshHeaders) => {
  const { url: path, method = "POST", encoding = "json", rename = {}, extra, headers: more } = template;
  const { base, usesCookies, fetch, refreshTimeout } = state;
  if (FULL && !path) throw misconfigured("the dialect has no such URL");
  const url = new URL(path, base);
  const headers = new Headers({
    Accept: "application/json",
    ...(usesCookies && SCRIPT_HEADERS),
    ...refreshHeaders,
    ...(FULL && more),
  });
  /** @type {Record<string, any>} */
  const carried = { ...(FULL && extra) };
  for (const name in values) if (values[name]) carried[(FULL && rename[name]) || name] = values[name];
  /** @type {BodyInit | undefined} */
  let body;
  if (!FULL || encoding === "json") {
    headers.set("Content-Type", "application/json");
    body = JSON.stringify(carried);
  } else if (encoding === "form") body = new URLSearchParams(carried);
  else for (const name in carried) url.searchParams.set(name, carried[name]);
  const prover = FULL && (await state.openProofs?.());
  const limit = new AbortController();
  const timer = setTimeout(() => limit.abort(), refreshTimeout * 1000);
  try {
    // rule 1: not `globalThis.fetch`, which the page may have replaced since
    /** @type {RequestInit} */
    const init = {
      method: FULL ? method : "POST",
      headers,
      body,
      cache: "no-store", // rule 2
      redirect: "error",
      keepalive: usesCookies || !refreshHeaders, // rule 3
      ...(usesCookies && { credentials: "include" }),
      signal: limit.signal,
    };
    const response = await (FULL && prover ? fetchProven(prover, fetch, url, init) : fetch(url, init)); // rule 6
    return { status: response.status, headers: response.headers, body: parseJson(await response.text()), url: template.url };
  } catch (cause) {
    const late = ` within ${refreshTimeout} seconds: is the server slow, or every connection to it busy?`;
    const why = limit.signal.aborted ? late : ": is it down, or does it not allow this page's requests (CORS)?"; // rule 4
    throw tryLater(`no response from ${url.origin}${why}`, { cause });
  } finally {
    clearTimeout(timer);
  }
};

/**
 * Ask the server to revoke tokens. Resolves to whether it confirmed; never throws.
 * @param {SessionState} state @param {Tokens} tokens
 */
export const revoke = async (state, { refresh, access }) => {
  try {
    return (await sendOwn(state, state.logout, { refresh_token: refresh ?? access })).status < 300;
  } catch {
    return false;
  }
};
