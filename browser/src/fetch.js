/**
 * The platform's fetch, with the session's token.
 *
 * 1. Requests that the session does not cover go to the platform as they are.
 * 2. A `Request` is sent by copies of it, so that its body can be sent again. A form is read at once: WebKit loses its
 *    files while it waits. WebKitGTK cannot read them either, and an upload must not arrive empty.
 * 3. A request with a token goes to the URL that was judged, and not to a relative one, which `<base>` may have changed.
 * 4. The response is the platform's own object. Only where its body is read to find a challenge, a copy is read.
 * 5. A platform that cannot send streams would send their name instead, without a word.
 *
 * @import { SessionResponse } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 */
import { misconfigured } from "./errors.js";
import { sendAuthorized } from "./request_flow.js";

/**
 * Send a request by the platform's fetch.
 * @param {SessionState} state @param {RequestInfo | URL} input @param {RequestInit & { unbroken?: boolean }} [init]
 * @returns {Promise<SessionResponse>}
 */
export const sessionFetch = async (state, input, init = {}) => {
  const { fetch } = state;
  const request = globalThis.Request && input instanceof Request ? input : undefined;
  const headers = new Headers(init.headers ?? request?.headers);
  const isForm = FULL && !init.body && /^multipart/.test(headers.get("Content-Type") ?? "");
  const form = isForm && (await request?.clone().blob().catch(cannotKeep)); // rule 2
  if (FULL && isStream(init.body) && !sendsStreams()) throw misconfigured("this browser cannot send streams"); // rule 5
  return sendAuthorized(state, {
    url: request?.url ?? `${input}`,
    unbroken: init.unbroken,
    ...(FULL && { method: init.method ?? request?.method ?? "GET" }),
    header: (name) => headers.get(name),
    body: init.body,
    signal: init.signal ?? request?.signal,
    redirect: init.redirect ?? request?.redirect,
    send: (plan) => {
      if (!plan) return fetch(input, init); // rule 1
      const { url, redirect, credentials } = plan;
      for (const name in plan.headers) headers.set(name, plan.headers[name]);
      const isMoved = FULL && request && request.url.split("#")[0] !== url.split("#")[0]; // by a redirect: see dpop.js
      return fetch(isMoved ? new Request(url, request) : (request?.clone() ?? url), {
        ...init,
        ...(FULL && form && { body: form }),
        headers,
        ...(redirect && { redirect }),
        ...(credentials && { credentials }),
      }); // rules 2 and 3
    },
    head: (response) => response,
    read: (response) => response.clone().text(), // rule 4
    discard: (response) => response.body?.cancel().catch(() => {}),
  });
};

/** @returns {never} */
const cannotKeep = () => {
  throw misconfigured("this browser loses the files of a form in a Request: give the form to fetch as body", "body");
};

/** @param {any} body */
const isStream = (body) => !!globalThis.ReadableStream && body instanceof ReadableStream;

const sendsStreams = () => {
  const init = { method: "POST", body: new ReadableStream(), duplex: "half" };
  return !new Request("http://localhost", init).headers.has("Content-Type");
};
