/**
 * The platform's fetch, with the session's token.
 *
 * 1. Requests that the session does not cover go to the platform as they are.
 * 2. A `Request` is sent by copies of it, so that its body can be sent again.
 * 3. A request with a token goes to the URL that was judged, and not to a relative one, which `<base>` may have changed.
 * 4. The response is the platform's own object. Only where its body is read to find a challenge, a copy is read.
 *
 * @import { SessionResponse } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 */
import { isCovered, redirectMode, resolve } from "./credentials.js";
import { sendAuthorized } from "./request_flow.js";

/**
 * Send a request by the platform's fetch.
 * @param {SessionState} state @param {RequestInfo | URL} input @param {RequestInit & { unbroken?: boolean }} [init]
 * @returns {Promise<SessionResponse>}
 */
export const sessionFetch = async (state, input, init = {}) => {
  const { header, usesCookies, fetch } = state;
  const request = input instanceof Request ? input : undefined;
  const url = resolve(request?.url ?? `${input}`);
  const headers = new Headers(init.headers ?? request?.headers);
  if (!isCovered(state, url, init, headers.get(header))) return fetch(input, init); // rule 1
  return sendAuthorized(state, {
    url,
    body: init.body,
    signal: init.signal ?? request?.signal,
    send: (authorization) => {
      for (const name in authorization) headers.set(name, authorization[name]);
      return fetch(request?.clone() ?? url, {
        ...init,
        headers,
        ...(usesCookies && { credentials: "include" }),
        redirect: redirectMode(state, init.redirect ?? request?.redirect),
      }); // rules 2 and 3
    },
    head: (response) => response,
    read: (response) => response.clone().text(), // rule 4
    discard: (response) => response.body?.cancel().catch(() => {}),
  });
};
