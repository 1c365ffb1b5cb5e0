// The two clients, and a thief. Each is given a fetch, and speaks with the server by that alone.

import { createSession } from "./auth/unbroken.js";

const base = new URL(".", import.meta.url).href;
const TIMEOUT = 2; // seconds for an exchange
const JSON_HEADERS = { "Content-Type": "application/json" };

const post = (fetch, place, body) =>
  fetch(base + place, {
    method: "POST",
    headers: JSON_HEADERS,
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT * 1000),
  });

const claimsOf = (token) => JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));

/** unbroken: what an application writes is the first statement, `session.login` and `session.fetch`. */
export const unbrokenClient = (fetch, onOver) => {
  const platform = globalThis.fetch;
  globalThis.fetch = fetch; // the module takes what it finds
  const session = createSession({
    url: base + "auth",
    storage: "localStorage",
    key: "unbroken demo",
    refreshTimeout: TIMEOUT,
    window: null, // whoever presses a button as often as he likes is not out of order here
  });
  globalThis.fetch = platform;
  session.on("over", onOver);
  const stored = () => JSON.parse(localStorage.getItem("unbroken demo"))?.tokens;
  return {
    login: ({ username, password }) => session.login(username, password, { label: "This page, by unbroken" }),
    send: (place, init) => session.fetch(base + place, init),
    get isOver() {
      return session.status.state === "over";
    },
    get sid() {
      return stored() && claimsOf(stored().access).sid;
    },
    /** What a script that was smuggled into the page could read. */
    get refreshToken() {
      return stored()?.refresh;
    },
    session,
  };
};

/** The usual recipe: on 401 refresh, store, try again; if that fails, log out. Nothing keeps others from doing the same. */
export const naiveClient = (fetch, onOver) => {
  const KEY = "naive demo";
  const tokens = () => JSON.parse(localStorage.getItem(KEY));
  const over = (reason) => {
    if (!tokens()) return;
    localStorage.removeItem(KEY);
    onOver({ reason });
  };
  const withToken = (place, init) =>
    fetch(base + place, { ...init, headers: { ...init.headers, Authorization: `Bearer ${tokens().access_token}` } });
  const refresh = async () => {
    const answer = await post(fetch, "auth/refresh", { refresh_token: tokens().refresh_token });
    if (!answer.ok) throw new Error((await answer.json()).reason ?? `status ${answer.status}`);
    const fresh = await answer.json();
    if (tokens()) localStorage.setItem(KEY, JSON.stringify(fresh));
  };
  return {
    async login({ username, password }) {
      const answer = await post(fetch, "auth/login", { username, password, label: "This page, by the naive client" });
      localStorage.setItem(KEY, JSON.stringify(await answer.json()));
    },
    async send(place, init) {
      const answer = await withToken(place, init);
      if (answer.status !== 401) return answer;
      try {
        await refresh();
      } catch (failure) {
        over(failure.name === "TimeoutError" ? "no answer" : failure.message);
        throw new Error("logged out");
      }
      return withToken(place, init);
    },
    get isOver() {
      return !tokens();
    },
    get sid() {
      return tokens() && claimsOf(tokens().access_token).sid;
    },
  };
};

/** Goes on with a stolen refresh token, as if it were his. */
export const thief = (fetch, refreshToken) => {
  let access = "";
  return {
    async refresh() {
      const answer = await post(fetch, "auth/refresh", { refresh_token: refreshToken });
      if (!answer.ok) return false;
      ({ access_token: access, refresh_token: refreshToken } = await answer.json());
      return true;
    },
    look: (init) => fetch(base + "api/0", { ...init, headers: { ...init.headers, Authorization: `Bearer ${access}` } }),
  };
};
