/**
 * The options of a session with the defaults filled in: what a backend expects and sends, and how the session works.
 *
 * 1. What is left out is as with unbroken's own server. As soon as `refresh` is given, it is another backend: then
 *    login, logout and the header of the idempotency key exist only if they are given too.
 * 2. Tokens travel over https only, or to this machine; `allowPlainHttp` permits the rest.
 * 3. The module's own URLs are relative to the address of the page. Markup cannot change it, as it can `baseURI`: a
 *    `<base>` that somebody slips into the page decides nowhere a password goes.
 * 4. What the platform lacks is told when the session is created.
 *
 * @import { Options, RequestTemplate } from "./api.d.ts"
 * @import { Settings } from "./state.d.ts"
 */
import { misconfigured } from "./errors.js";

/** @satisfies {Options} */
export const DEFAULTS = {
  storage: "memory",
  visitors: false,
  refreshTimeout: 10,
  waitTimeout: 60,
  window: { interval: 30, attempts: 5 },
  allowPlainHttp: false,
  url: "/auth",
  header: "Authorization",
  ...(FULL && {
    tokens: {},
    scheme: "Bearer",
    succeeded: { status: [200, 201] },
    endsSession: { status: [200, 400, 401], field: "error", values: ["invalid_grant"] },
    loginFailed: { status: [401, 403] },
  }),
};
const NEEDED = ["URL", "Headers", "AbortController"];
const LOOPBACK_OR_HTTPS = /^(https:|http:\/\/(localhost|127(\.\d+){3}|\[::1])(:\d+)?(\/|$))/;

/** Return the address of the page; that of its creator for a page without one, such as a blob or srcdoc. */
const addressOfPage = () => {
  const { location, origin } = globalThis;
  const href = location?.href ?? "http://localhost";
  return [href, origin].find((url) => /^http/.test(url)) ?? href;
};

/**
 * Return the complete options. Throws misconfigured.
 * @param {Options} options @returns {Settings}
 */
export const resolveOptions = (options) => {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  /** @type {Options & Required<Pick<Options, keyof typeof DEFAULTS>>} */
  const settings = /** @type {any} */ ({ ...DEFAULTS, ...Object.fromEntries(given) });
  const { refresh, fetch = globalThis.fetch } = settings;
  if (!FULL && refresh) throw misconfigured("the core knows unbroken's own server only", "refresh");
  const missing = FULL && NEEDED.find((name) => !(name in globalThis));
  if (FULL && (missing || !fetch)) throw misconfigured(`this platform has no ${missing || "fetch"}`); // rule 4
  const base = new URL(settings.url, addressOfPage()).href; // rule 3
  /** @param {"refresh" | "login" | "logout"} name @returns {RequestTemplate} */
  const templateOf = (name) =>
    (FULL && settings[name]) || { url: FULL && refresh ? "" : `${base}/${name}` }; // rule 1
  const templates = { refresh: templateOf("refresh"), login: templateOf("login"), logout: templateOf("logout") };
  const endpoints = Object.values(templates).map(({ url }) => url && new URL(url, base).href.split("?")[0]);
  const origins = (settings.origins ?? endpoints.slice(0, 1)).map((url) => new URL(url, base).origin);
  if (!settings.allowPlainHttp && [...endpoints, ...origins].some((url) => url && !LOOPBACK_OR_HTTPS.test(url)))
    throw misconfigured("tokens need https"); // rule 2
  return {
    key: "unbroken " + endpoints[0],
    idempotencyHeader: FULL && refresh ? "" : "Idempotency-Key", // rule 1
    ...settings,
    fetch,
    ...templates,
    base,
    endpoints,
    origins,
    usesCookies: settings.storage === "cookie",
    isOwnServer: !refresh,
  };
};
