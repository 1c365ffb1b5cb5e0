/**
 * Servers that render pages (Next, Nuxt, …): refresh the cookies of a browser before its page is rendered.
 *
 * 1. Requests of one browser with the same cookies share one refresh, and for as long as the server's grace the new
 *    cookies. To another node that refreshes at the same time the server gives the same tokens.
 * 2. So it does not matter which of the responses the browser gets last. A request with cookies that have been refreshed
 *    more than once gets the newest.
 * 3. A refresh is repeated with its idempotency key. The key is random: one that is made of the token would be known to
 *    a thief of the token.
 * 4. Whether there is a second holder is the server's to judge, so it learns which browser asks, and requests of other
 *    browsers share nothing.
 * 5. Only a definite response ends a session. After any other the page is rendered with the cookies that there are.
 * 6. The access token is read without trusting it, for when it expires.
 *
 * @import { Outcome } from "./server_api.d.ts"
 *
 * @typedef {string[]} Cookies as `name=value`
 * @typedef {Pick<Outcome, "state" | "reason" | "setCookie">} Answer of the server
 * @typedef {{ key: string, answer?: Promise<Answer> }} Refresh
 */
const GRACE_SECONDS = 10;
const EARLY = 50; // a token is refreshed before the last fiftieth of its life, so that it lives while the page is made
const BROWSER = /^(user-agent|x-forwarded-for)$/; // headers that say which one it is

/** @param {string} cookie with an access token */
const lives = (cookie) => {
  try {
    const { iat, exp } = JSON.parse(atob(cookie.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    return Date.now() / 1000 < exp - (exp - iat) / EARLY; // rule 6
  } catch {}
};

/** @param {Answer["state"]} state @param {string} [reason] @param {string[]} [setCookie] @returns {Answer} */
const answer = (state, reason = "", setCookie = []) => ({ state, reason, setCookie });

/** @type {typeof import("./server_api.d.ts").cookieRefresher} */
export const cookieRefresher = ({ url, name = "unbroken", timeout = 5, fetch = globalThis.fetch }) => {
  /** @type {Map<string, Refresh>} */
  const known = new Map();
  /** @param {string} kind of the session's cookies */
  const are = (kind) => (/** @type {string} */ cookie) => RegExp(`^(__\\w+-)?${name}-(${kind})=`).test(cookie);

  /** @param {[string, string][]} headers @param {boolean} [isLast] @returns {Promise<Answer>} */
  const ask = async (headers, isLast) => {
    try {
      const signal = AbortSignal.timeout(timeout * 1000);
      const response = await fetch(`${url}/refresh`, { method: "POST", headers, signal, redirect: "error" });
      const { error, reason } = /** @type {any} */ (await response.json().catch(() => ({})));
      const state = response.ok ? "good" : error === "invalid_grant" ? "over" : "expired";
      return answer(state, reason, response.headers.getSetCookie());
    } catch {
      return isLast ? answer("expired", "no_response") : ask(headers, true); // rules 3 and 5
    }
  };

  /** @param {string} id @returns {Refresh} */
  const remember = (id) => {
    /** @type {any} */ (setTimeout(() => known.delete(id), GRACE_SECONDS * 1000)).unref?.(); // rule 1
    return /** @type {Refresh} */ (known.set(id, { key: crypto.randomUUID() }).get(id));
  };

  /** @param {[string, string][]} headers @param {Refresh} refresh */
  const answerOf = async (headers, refresh) => {
    const said = await ask([...headers, ["X-Unbroken", "1"], ["Idempotency-Key", `"${refresh.key}"`]]);
    if (said.state === "expired") refresh.answer = undefined; // rule 3
    else if (said.state === "good" && !said.setCookie.some(are("access")))
      throw new Error(`${url} needs Cookies("both")`);
    return said;
  };

  return async (given) => {
    const headers = new Headers(/** @type {any} */ (given));
    const browser = [...headers].filter(([header]) => BROWSER.test(header));
    /** @type {Cookies} */
    let cookies = headers.get("Cookie")?.match(/[^; ][^;]*/g) ?? [];
    let now = answer("good");
    /** @type {Refresh | undefined} */
    let refresh;
    const have = (/** @type {string} */ kind) => cookies.filter(are(kind));
    const id = () => `${[have("refresh"), browser]}`; // rule 4
    while (now.state === "good" && ((refresh = known.get(id()))?.answer || !(now.setCookie[0] || have("access").some(lives)))) {
      if (!have("refresh")[0]) now = answer("over", "no_refresh_cookie");
      else {
        refresh ??= remember(id());
        now = await (refresh.answer ??= answerOf([...browser, ["Cookie", have("access|refresh").join("; ")]], refresh));
        const fresh = now.setCookie.map((line) => line.split(";")[0]);
        const isNew = (/** @type {string} */ old) => fresh.some((one) => one.split("=")[0] === old.split("=")[0]);
        cookies = [...cookies.filter((old) => !isNew(old)), ...fresh]; // rule 2
      }
    }
    if (now.state === "over") cookies = cookies.filter((cookie) => !are("access|refresh")(cookie));
    headers.set("Cookie", cookies.join("; "));
    return { ...now, headers, token: have("access").at(-1)?.replace(/.*?=/, "") ?? "" };
  };
};
