// The two clients, and a thief. Each one gets a fetch, and reaches the server through it only.

import { createSession } from "./auth/unbroken.js";

const base = new URL(".", import.meta.url).href;
const TIMEOUT = 2; // seconds for a refresh
const JSON_HEADERS = { "Content-Type": "application/json" };

const post = (fetch, path, body) =>
  fetch(base + path, {
    method: "POST",
    headers: JSON_HEADERS,
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT * 1000),
  });

const claimsOf = (token) => JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));

/** unbroken: an application writes createSession(...), session.login and session.fetch. */
export const unbrokenClient = (fetch, onOver) => {
  const platform = globalThis.fetch;
  globalThis.fetch = fetch; // the module takes the fetch that it finds
  const session = createSession({
    url: base + "auth",
    storage: "localStorage",
    key: "unbroken demo",
    refreshTimeout: TIMEOUT,
    window: null, // no limit: a visitor may press the buttons as often as they like
  });
  globalThis.fetch = platform;
  session.on("over", onOver);
  const stored = () => JSON.parse(localStorage.getItem("unbroken demo"))?.tokens;
  return {
    login: ({ username, password }) => session.login(username, password, { label: "This page, by unbroken" }),
    send: (path, init) => session.fetch(base + path, init),
    get isOver() {
      return session.status.state === "over";
    },
    get sid() {
      return stored() && claimsOf(stored().access).sid;
    },
    /** What an injected script could read. */
    get refreshToken() {
      return stored()?.refresh;
    },
    session,
  };
};

/** The usual recipe: on 401 refresh, store, send again; if that fails, log out. Requests do not share the refresh. */
export const naiveClient = (fetch, onOver) => {
  const KEY = "naive demo";
  const tokens = () => JSON.parse(localStorage.getItem(KEY));
  const over = (reason) => {
    if (!tokens()) return;
    localStorage.removeItem(KEY);
    onOver({ reason });
  };
  const withToken = (path, init) =>
    fetch(base + path, { ...init, headers: { ...init.headers, Authorization: `Bearer ${tokens().access_token}` } });
  const refresh = async () => {
    const response = await post(fetch, "auth/refresh", { refresh_token: tokens().refresh_token });
    if (!response.ok) throw new Error((await response.json()).reason ?? `status ${response.status}`);
    const fresh = await response.json();
    if (tokens()) localStorage.setItem(KEY, JSON.stringify(fresh));
  };
  return {
    async login({ username, password }) {
      const response = await post(fetch, "auth/login", { username, password, label: "This page, by the naive client" });
      localStorage.setItem(KEY, JSON.stringify(await response.json()));
    },
    async send(path, init) {
      const response = await withToken(path, init);
      if (response.status !== 401) return response;
      try {
        await refresh();
      } catch (failure) {
        over(failure.name === "TimeoutError" ? "no response" : failure.message);
        throw new Error("logged out");
      }
      return withToken(path, init);
    },
    get isOver() {
      return !tokens();
    },
    get sid() {
      return tokens() && claimsOf(tokens().access_token).sid;
    },
    get refreshToken() {
      return tokens()?.refresh_token;
    },
  };
};

/** Uses a stolen refresh token, and then the tokens that it gets for it. */
export const thief = (fetch, refreshToken) => {
  let access = "";
  const read = () => fetch(base + "api/0", { headers: { Authorization: `Bearer ${access}` } });
  return {
    async refresh() {
      const response = await post(fetch, "auth/refresh", { refresh_token: refreshToken });
      if (!response.ok) return false;
      ({ access_token: access, refresh_token: refreshToken } = await response.json());
      return true;
    },
    /** One request to the API, with a refresh if it needs one. False: the thief is locked out. */
    async read() {
      if ((await read()).ok) return true;
      return (await this.refresh()) && (await read()).ok;
    },
  };
};
