/**
 * unbroken: sessions of two tokens that never break, for pages and workers. Times are in seconds.
 *
 *     const session = createSession({ storage: "localStorage" }); // unbroken's own server, at /auth of this origin
 *     await session.login("ada", "correct horse");
 *     await session.fetch("/orders"); // as the platform's fetch
 *     session.attach(axios); // any axios instance
 *
 *  1. A token in good time is used as it is. An ageing one is renewed behind the request, an old one before it.
 *  2. Whoever renews is alone among all tabs, looks again first, and adopts what another tab has done.
 *  3. The attempt id is stored before the exchange is sent, so that another tab can finish what a dead one began.
 *  4. New tokens are stored in one write, before anybody uses them, and only for the login they were asked for.
 *  5. Only a definite answer ends a session. Everything else means try later, and loses nothing.
 *  6. A challenge to an older token than the current one is answered with the current one, without an exchange.
 *     Otherwise the session is renewed and the request sent once more. That answer is final.
 *  7. A body that can be sent only once is never sent twice, and never empty.
 *  8. Whoever waits can leave at once, and never waits for ever, whatever the exchange does.
 *  9. Login and logout count at once. What waits under one user is never sent for another.
 * 10. Tokens go to allowed origins only. No error, event or message shows one.
 *
 * This file needs no build step. The server sends it without comments and white space (server/browser_module.py).
 *
 * @typedef {object} Ask how the backend is asked for something
 * @property {string} url
 * @property {string} [method]
 * @property {"json" | "form" | "query"} [carry]
 * @property {Record<string, string>} [names] the backend's names for refresh_token, username, password
 * @property {Record<string, unknown>} [extra] goes along
 * @property {Record<string, string>} [headers]
 * @typedef {{ status?: number[], field?: string, values?: unknown[], negate?: boolean }} When a condition on an answer
 * @typedef {object} Dialect how the backend speaks; what is left out is as with unbroken's own server
 * @property {string} [url] where unbroken's own endpoints are; other URLs are relative to it
 * @property {Ask} [refresh]
 * @property {Ask} [login]
 * @property {Ask} [logout]
 * @property {Record<string, string>} [tokens] dotted paths: access_token, refresh_token, expires_in, refresh_seq,
 *   token_type, prefix
 * @property {string} [header]
 * @property {string | null} [scheme] null: as the answer says
 * @property {When} [challenge]
 * @property {When} [granted]
 * @property {When} [over]
 * @property {When} [refused]
 * @property {string[]} [origins]
 * @property {string} [attempt] the header that carries the attempt id; empty for none
 * @typedef {object} Settings
 * @property {"memory" | "localStorage" | "sessionStorage" | "cookie"} [storage]
 * @property {string} [key] the name of the record, the lock and the channel
 * @property {boolean} [visitors] lets requests go without a token while nobody is logged in
 * @property {number} [exchangeTimeout]
 * @property {number} [waitTimeout]
 * @property {{ interval: number, attempts: number } | null} [window] of renewals that the clock did not ask for
 * @property {boolean} [allowPlainHttp]
 * @typedef {{ access?: string, refresh?: string, type?: string, lifetime?: number, at: number,
 *   seq?: number, sid?: unknown }} Tokens
 * @typedef {{ version: number, epoch: number, tokens?: Tokens, over?: string, attempt?: string, pause?: number,
 *   failed?: { code: string, message: string, until: number } }} Stored
 * @typedef {{ status: number, headers: Headers, url?: string }} Shown
 * @typedef {{ reason?: string, retryAfter?: number, field?: string, renewed?: boolean, cause?: unknown }} About
 */

// ---- errors and answers, as values ----------------------------------------------------------------------------------

/**
 * `code` is stable: session_over (log in again; `reason`), try_later, renewal_storm (nothing is lost;
 * `retryAfter`), not_replayable (`renewed`), access_denied (`reason`; `cause` is the body of the answer),
 * invalid_request, bad_answer (`field`), misconfigured.
 */
export class UnbrokenError extends Error {
  /** @type {string | undefined} */
  reason;
  /** @type {string | undefined} */
  field;
  /** @type {boolean | undefined} */
  renewed;
  retryAfter = 0;

  /** @param {string} code @param {string} message @param {About} [about] */
  constructor(code, message, about) {
    super(message);
    this.code = code;
    Object.assign(this, about);
  }
}

/** @param {string} code @param {string} message @param {About} [about] */
const error = (code, message, about) => new UnbrokenError(code, message, about);
/** @param {string} message @param {About} [about] */
const later = (message, about) => error("try_later", message, about);
/** @param {string} reason */
const over = (reason) => error("session_over", `log in again: ${reason}`, { reason });

/** @param {any} value */
const isObject = (value) => Object(value) === value && !Array.isArray(value);

/** What stands at a dotted path. @param {any} body @param {string} path */
const dig = (body, path) => path.split(".").reduce((at, name) => at?.[name], body);

/** @param {string | null | undefined} text */
const parsed = (text) => {
  try {
    return JSON.parse(/** @type {string} */ (text));
  } catch {}
};

/** Whether an answer fulfils a condition. @param {When} when @param {number} code @param {unknown} [body] */
const holds = ({ status, field, values = [], negate = false }, code, body) =>
  (!status || status.includes(code)) &&
  (!field || (isObject(body) && values.map(String).includes(String(dig(body, field))) !== negate));

/** Whether a 401 is about such a token (RFC 6750 §3). @param {string | null} header @param {string} scheme */
const challenges = (header, scheme) => {
  const plain = (header ?? "bearer").replace(/error="(\w+)"/g, "error=$1").replace(/"(\\.|[^"\\])*"/g, "");
  return (
    RegExp(`(^|[ ,])(bearer|${scheme})([ ,]|$)`, "i").test(plain) && !/error=(insufficient|invalid_req)/.test(plain)
  );
};

/** A positive number, also from a text. @param {any} value */
const positive = (value) => {
  const number = parseFloat(value);
  return number > 0 && number < Infinity ? number : undefined;
};

/** `exp − iat` of a JWT, read without trusting it. @param {string} token */
const lifetimeOf = (token) => {
  try {
    const { exp, iat } = parsed(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
    return positive(exp - iat);
  } catch {}
};

/**
 * Seconds that `Retry-After` asks for, an hour at most. A date is read against the answer's own, so that no clock has
 * to agree with another. @param {Headers} headers
 */
const retryAfter = (headers) => {
  const at = (/** @type {string} */ name) => Date.parse(headers.get(name) ?? "") / 1000;
  return Math.min(positive(headers.get("Retry-After")) ?? positive(at("Retry-After") - at("Date")) ?? 0, 3600);
};

// ---- waiting --------------------------------------------------------------------------------------------------------

/** @param {number} seconds */
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
/** @returns {undefined} */
const quiet = () => {};

// ---- the session ----------------------------------------------------------------------------------------------------

/** A session, for all requests of a page. Throws misconfigured. @param {Dialect & Settings} [options] */
export const createSession = (options = {}) => {
  const home = globalThis.document?.baseURI ?? globalThis.location?.href ?? "http://localhost";
  const base = new URL(options.url ?? "/auth", home).href;
  /** @param {"refresh" | "login" | "logout"} name @returns {Ask} */
  const askOf = (name) => options[name] ?? { url: options.refresh ? "" : `${base}/${name}` };
  const [refresh, login, logout] = [askOf("refresh"), askOf("login"), askOf("logout")];
  const {
    header = "Authorization",
    scheme = "Bearer",
    tokens: paths = {},
    challenge,
    granted = { status: [200, 201] },
    over: ended = { status: [400, 401], field: "error", values: ["invalid_grant"] },
    refused = { status: [401, 403] },
    attempt = options.refresh ? "" : "Idempotency-Key",
    storage = "memory",
    exchangeTimeout = 10,
    waitTimeout = 60,
    window: limit = { interval: 30, attempts: 5 },
  } = options;
  const cookie = storage === "cookie";
  /** @type {Record<string, string>} */
  const sign = cookie ? { "X-Unbroken": "1" } : {};
  // Browsers take every header but this one along when a redirect leads to another site.
  const strict = header !== "Authorization";
  /** What is to come of a redirect. @param {RequestRedirect} [redirect] what is wished for */
  const redirected = (redirect) => (strict && redirect !== "manual" ? "error" : redirect);
  const fetch = globalThis.fetch;
  const random = Math.random(); // so that tabs do not all renew at once
  const places = [refresh, login, logout].map(({ url }) => url && new URL(url, base).href.split("?")[0]);
  const origins = (options.origins ?? places.slice(0, 1)).map((place) => new URL(place, base).origin);
  /** Whether tokens would travel in the clear. @param {string} place a URL, or none */
  const isPlain = (place) => !/^($|https:|http:\/\/(localhost|127(\.\d+){3}|\[::1])(:\d+)?(\/|$))/.test(place);
  if (!options.allowPlainHttp && [...places, ...origins].some(isPlain)) throw error("misconfigured", "use https");
  const key = options.key ?? "unbroken " + places[0];

  // ---- the record: one text under one key ---------------------------------------------------------------------------

  // In cookies there may be a session that no script knows of: one exchange tells.
  /** @type {Stored} */
  const nothing = cookie
    ? { version: 0, epoch: 0, tokens: { lifetime: 1, at: 0 } }
    : { version: 0, epoch: 0, over: "not_logged_in" };
  /** @type {string | null} */
  let text = null;
  let record = nothing;
  /** @type {Storage | undefined} */
  let store;
  try {
    store = /** @type {any} */ (globalThis)[cookie ? "localStorage" : storage];
  } catch {} // a privacy mode: memory will do

  // An access token that comes with cookies stays in memory, by its version.
  /** @type {Record<number, string | undefined>} */
  let held = {};

  /** @param {Stored} now */
  const accessOf = (now) => now.tokens?.access ?? held[now.version] ?? "";

  /** What goes along with a request. @param {Stored} now @returns {Record<string, string>} */
  const headersOf = (now) => {
    const token = accessOf(now);
    if (!token) return sign;
    const before = paths.prefix || scheme === null ? now.tokens?.type : scheme && scheme + " ";
    return { [header]: before + token };
  };

  // Values of the header that are or were ours: who sends one by hand means the session's token.
  const given = new Set();

  /** Takes a record for the newest. @param {Stored} now */
  const note = (now) => {
    record = now;
    given.add(headersOf(now)[header]);
  };

  /** The newest record: the same object as long as it is the same. */
  const load = () => {
    const now = store ? store.getItem(key) : text;
    if (now !== text) {
      text = now;
      note(parsed(now) ?? nothing);
    }
    return record;
  };

  /** @param {Stored} next */
  const save = (next) => {
    const { epoch } = next.tokens ? next : record;
    note(next);
    text = JSON.stringify(next);
    try {
      if (storage === "sessionStorage")
        if (next.tokens) localStorage.setItem(key + epoch, `${next.version}`);
        else if (next.over !== "other_tab") localStorage.removeItem(key + epoch);
      store?.setItem(key, text);
    } catch {
      store = undefined; // full, or taken away
    }
    channel?.postMessage(0);
    look(true);
    return next;
  };

  /**
   * A duplicated tab has a copy of sessionStorage, whose refresh token may be spent. So localStorage tells the newest
   * version of each login. @param {Stored} mine
   */
  const isCopy = (mine) => store && Number(localStorage.getItem(key + mine.epoch)) > mine.version;

  /** The newest record of the login that `sent` is of. Throws session_over if that is gone. @param {Stored} sent */
  const current = (sent) => {
    const now = load();
    if (!now.tokens) throw over(now.over ?? "logged_out");
    if (now.epoch !== sent.epoch) throw over("other_login");
    return now;
  };

  /** @param {{ version: number, epoch: number }} place @param {Tokens} tokens */
  const keep = (place, tokens) => {
    if (cookie) {
      held = { [place.version]: tokens.access };
      delete tokens.access;
    }
    return save({ ...place, tokens });
  };

  /** What is newer than all before. */
  const next = () => {
    const version = Math.max(load().version + 1 || 0, Date.now());
    return { version, epoch: version };
  };

  // ---- news, of this tab and of others ------------------------------------------------------------------------------

  const target = new EventTarget();
  /** @param {string} type @param {object} detail */
  const emit = (type, detail) => target.dispatchEvent(new CustomEvent(type, { detail }));
  /** @type {(Stored & { land: (now: Stored) => void, promise: Promise<Stored> }) | undefined} */
  let flight;
  let gone = new AbortController();
  let known = load();

  const look = (here = false) => {
    const now = load();
    const before = known;
    if (now.version === before.version && now.epoch === before.epoch) return;
    known = now;
    const reason = now.tokens ? "other_login" : (now.over ?? "logged_out");
    const isOther = !now.tokens || now.epoch !== before.epoch;
    if (isOther) {
      gone.abort(over(reason));
      gone = new AbortController();
    } else if (flight && flight.version < now.version && isGood(now)) flight.land(now);
    if (isOther && before.tokens && before !== nothing && !(here && now.tokens)) emit("over", { reason, here });
    if (now.tokens) emit("tokens", { here });
  };

  /** After sleep, a stay in the back/forward cache, a time offline. @param {Event} event */
  const wake = ({ type }) => {
    look();
    const now = load();
    if (type === "online" && now.failed) save({ ...now, failed: undefined });
    if (ageOf(now)) renewal(now).catch(quiet);
  };

  let channel = store && new BroadcastChannel(key);
  if (channel) channel.onmessage = () => look();
  /** @type {Record<string, (event: any) => void>} */
  const ears = { storage: () => look(), pageshow: wake, online: wake, focus: wake, visibilitychange: wake };
  for (const type in ears) globalThis.addEventListener?.(type, ears[type]);

  // ---- 1: when to renew ---------------------------------------------------------------------------------------------

  /** 0 in good time, 1 ageing, 2 old, 3 dead. @param {Stored} now */
  const ageOf = ({ tokens }) => {
    if (!tokens?.lifetime) return 0;
    const { lifetime, refresh, at } = tokens;
    const left = lifetime - (Date.now() - at) / 1000;
    const advisory = cookie || refresh ? Math.min(lifetime * 0.2, 300) : 0;
    const mandatory = Math.min(lifetime * 0.1, 10, advisory);
    if (left <= mandatory) return left > 0 ? 2 : 3;
    // A clock that was set back says nothing about the age.
    return left > lifetime || left <= advisory - (advisory - mandatory) * random * 0.5 ? 1 : 0;
  };

  /** Whether the token can be sent. @param {Stored} now */
  const isGood = (now) => ageOf(now) < 3 && (!now.tokens?.type || accessOf(now));

  // ---- 2 to 5: renewing ---------------------------------------------------------------------------------------------

  /** @type {number[]} */
  const renewals = [];

  /**
   * One request of the library's own: without an old token, by nobody's hooks, through no redirect and no cache.
   * @param {Ask} ask @param {Record<string, any>} values @param {Record<string, string>} [more]
   */
  const call = async ({ url, method = "POST", carry = "json", names = {}, extra, headers: fixed }, values, more) => {
    if (!url) throw error("misconfigured", "no such URL");
    const where = new URL(url, base);
    const headers = new Headers({
      Accept: "application/json",
      ...sign,
      ...more,
      ...fixed,
    });
    /** @type {Record<string, any>} */
    const carried = { ...extra };
    for (const name in values) if (values[name]) carried[names[name] ?? name] = values[name];
    /** @type {BodyInit | undefined} */
    let body;
    if (carry === "json") {
      headers.set("Content-Type", "application/json");
      body = JSON.stringify(carried);
    }
    if (carry === "form") body = new URLSearchParams(carried);
    if (carry === "query") for (const name in carried) where.searchParams.set(name, carried[name]);
    try {
      const answer = await fetch(where, {
        method,
        headers,
        body,
        cache: "no-store",
        redirect: "error",
        // A login or logout goes on when the page is left.
        keepalive: cookie || !more,
        ...(cookie && { credentials: "include" }),
        signal: AbortSignal.timeout(exchangeTimeout * 1000),
      });
      return { status: answer.status, headers: answer.headers, body: parsed(await answer.text()) };
    } catch (cause) {
      throw later("the server is silent", { cause });
    }
  };

  /** The tokens in an answer. Throws bad_answer. @param {any} body @returns {Tokens} */
  const tokensIn = (body) => {
    const at = (/** @type {string} */ name) => dig(body, paths[name] ?? name);
    const textAt = (/** @type {string} */ name, needed = false) => {
      const value = at(name) || undefined;
      const path = paths[name] ?? name;
      if (value ? !/^[ -~]+$/.test(value) || !value.trim : needed)
        throw error("bad_answer", `no text at ${path}`, { field: isObject(body) ? path : "" });
      return value;
    };
    const access = textAt("access_token", !cookie || !isObject(body));
    return {
      access,
      refresh: textAt("refresh_token"),
      type:
        access &&
        (paths.prefix
          ? at("prefix") === ""
            ? ""
            : textAt("prefix", true)
          : `${at("token_type") || "Bearer"} `),
      lifetime: positive(at("expires_in")) ?? lifetimeOf(access),
      at: Date.now(),
      seq: positive(at("refresh_seq")),
      sid: body?.sid,
    };
  };

  /**
   * Runs the work alone among all tabs. Only exchanges, and what else sets cookies, ever hold the lock, and nobody
   * waits for it for ever: then the stored attempt id has to do, as in browsers without locks.
   * @template T @param {() => Promise<T>} work @returns {Promise<T>}
   */
  const alone = (work) => {
    const locks = store && navigator.locks;
    if (!locks) return work();
    return new Promise((resolve, reject) => {
      const hold = async () => {
        const { version } = load();
        const done = work();
        resolve(done);
        await done.catch(quiet);
        // It takes a moment until other tabs can read what was written, and on a busy machine a long one.
        if (load().version !== version) await sleep(0.5);
      };
      locks
        .request(key, { signal: AbortSignal.timeout(exchangeTimeout * 1500) }, hold)
        .catch(() => work().then(resolve, reject));
    });
  };

  /** The renewal that all in this tab share. Rejects with try_later or renewal_storm. @param {Stored} seen */
  const renewal = async (seen, challenged = false) => {
    if (flight?.epoch === seen.epoch) return flight.promise;
    const now = Date.now();
    const { failed } = load();
    const wait = failed ? (failed.until - now) / 1000 : 0;
    // An hour at most, whatever the server or the clock says.
    if (failed && wait > 0 && wait < 3601) throw error(failed.code, failed.message, { retryAfter: wait });
    if (limit && (challenged || !ageOf(seen))) {
      if (now - (renewals.at(-limit.attempts) ?? 0) < limit.interval * 1000)
        throw error("renewal_storm", "new tokens are rejected", { retryAfter: limit.interval });
      renewals.push(now);
    }
    /** @type {PromiseWithResolvers<Stored>} */
    const { promise, resolve, reject } = Promise.withResolvers();
    const mine = (flight = { ...seen, land: resolve, promise });
    alone(() => renew(seen)).then(resolve, reject);
    return promise.finally(() => flight === mine && (flight = undefined));
  };

  /** Tokens newer than `seen`, exchanged or adopted. @param {Stored} seen */
  const renew = async (seen) => {
    let now = current(seen);
    if (now.version > seen.version && isGood(now)) return now;
    if (!cookie && !now.tokens?.refresh) return end(now, "no_refresh_token");
    if (isCopy(now)) return end(now, "other_tab");
    if (!now.attempt) now = save({ ...now, attempt: `${crypto.getRandomValues(new Uint32Array(4))}` });
    emit("renewal", { state: "begun" });
    for (let tries = 1; ; tries++) {
      try {
        return await exchange(now);
      } catch (/** @type {any} */ failure) {
        const moved = current(now);
        if (moved.version > now.version && isGood(moved)) return moved;
        if (failure.code === "session_over") return end(now, failure.reason);
        if (failure.code !== "try_later" || tries > 2 || failure.retryAfter > 2) {
          emit("renewal", { state: "failed", error: failure });
          throw remembered(moved, failure);
        }
        // At once the first time: a server that rotates strictly may take a repetition only shortly after.
        await sleep(Math.max(tries - 1, failure.retryAfter));
        current(now);
      }
    }
  };

  /** @param {Stored} now @param {UnbrokenError} failure */
  const remembered = (now, failure) => {
    const { code, message } = failure;
    const { pause = 1 } = now;
    failure.retryAfter = Math.max(failure.retryAfter, pause);
    const until = Date.now() + failure.retryAfter * 1000;
    save({ ...now, pause: Math.min(30, pause * 2), failed: { code, message, until } });
    return failure;
  };

  /** One exchange, and its tokens stored. @param {Stored} now */
  const exchange = async (now) => {
    const { status, headers, body } = await call(
      refresh,
      { refresh_token: now.tokens?.refresh },
      attempt ? { [attempt]: `"${now.attempt}"` } : {},
    );
    const word = body?.reason ?? "";
    if (holds(ended, status, body)) throw over(/^\w+$/.test(word) ? word : "invalid_grant");
    if (cookie && word === "no_refresh_token") throw over("not_logged_in");
    if (!holds(granted, status, body))
      throw later(`the server answered with status ${status}`, { retryAfter: retryAfter(headers) });
    if (!isObject(body)) throw later("the server answered with no object");
    return arrived(now, tokensIn(body));
  };

  /** Stores new tokens, unless the login is over or others were faster. @param {Stored} seen @param {Tokens} fresh */
  const arrived = async (seen, fresh) => {
    const { epoch, version, tokens } = load();
    if (!tokens || epoch !== seen.epoch) await tell(fresh);
    current(seen);
    if (tokens?.sid && fresh.sid !== tokens.sid && cookie) return keep(next(), fresh);
    if (fresh.seq && tokens?.seq && fresh.seq <= tokens.seq) throw later("no newer tokens");
    return keep({ version: version + 1, epoch }, { ...fresh, refresh: fresh.refresh ?? tokens?.refresh });
  };

  /** @param {Stored} seen @param {string} reason @returns {Stored} */
  const end = ({ version, epoch }, reason) => {
    save({ version: version + 1, epoch, over: reason });
    throw over(reason);
  };

  // ---- 6 to 8: requests ---------------------------------------------------------------------------------------------

  // Endpoints that are left alone for a while.
  /** @type {Record<string, number>} */
  const stubborn = {};

  /** @param {URL} where @param {unknown} wish @param {string | null | undefined} value of the header */
  const isOurs = (where, wish, value) =>
    wish !== false &&
    origins.includes(where.origin) &&
    !places.includes(where.origin + where.pathname) &&
    (!value || given.has(value));

  /**
   * What comes of a renewal, unless the time, the caller or the end of the login says otherwise first.
   * @param {Promise<Stored>} work @param {number} [timeout] @param {AbortSignal | null} [signal]
   * @returns {Promise<Stored>}
   */
  const wait = (work, timeout = waitTimeout, signal) =>
    new Promise((resolve, reject) => {
      const timer = AbortSignal.timeout(timeout * 1000);
      const stop = AbortSignal.any([timer, gone.signal, signal ?? timer]);
      stop.onabort = () => reject(timer.aborted ? later("it takes too long") : stop.reason);
      stop.throwIfAborted();
      work.then(resolve, reject);
    });

  /** A record to send with. @param {boolean} fresh @param {number} [timeout] @param {AbortSignal | null} [signal] */
  const authorize = async (fresh, timeout, signal) => {
    const now = load();
    if (!now.tokens) throw over(now.over ?? "logged_out");
    const age = ageOf(now);
    if (isGood(now) && !age) return now;
    const work = renewal(now);
    work.catch(quiet);
    if (isGood(now) && age === 1 && !fresh) return now;
    try {
      return current(await wait(work, timeout, signal));
    } catch (failure) {
      if (isGood(current(now))) return current(now);
      throw failure;
    }
  };

  /**
   * Whether an answer is about our token; its body is read only if the dialect asks for it.
   * @param {Shown} answer @param {URL} where @param {() => Promise<string>} read
   */
  const isChallenge = async ({ status, headers, url }, where, read) => {
    // What answers behind a redirect to another origin did not get it.
    if (url && !url.startsWith(where.origin + "/")) return false;
    if (!challenge) return status === 401 && challenges(headers.get("WWW-Authenticate"), scheme ?? "");
    const isRead =
      challenge.field &&
      challenge.status?.includes(status) !== false &&
      headers.get("Content-Type")?.match(/[/+]json\s*(;|$)/i);
    return holds(challenge, status, isRead && parsed(await read().catch(quiet)));
  };

  /**
   * One request on its way: what fetch and axios have in common.
   * @template {object} T @param {{ where: URL, body: unknown, timeout?: number, signal?: AbortSignal | null,
   *   send: (headers: Record<string, string>) => Promise<T>, show: (answer: T) => Shown,
   *   read: (answer: T) => Promise<string>, free: (answer: T) => void }} request @returns {Promise<T>}
   */
  const passage = async ({ where, body, timeout, signal, send, show, read, free }) => {
    if (options.visitors && !load().tokens) return send({});
    const once = body instanceof ReadableStream;
    const place = where.origin + where.pathname;
    /** @param {T} answer */
    const refuses = (answer) => isChallenge(show(answer), where, () => read(answer));
    /** @param {Stored} now @param {number} seconds */
    const isYoung = (now, seconds) => Date.now() - (now.tokens?.at ?? 0) < seconds * 1000;
    const sent = current(await authorize(once, timeout, signal));
    const answer = await send(headersOf(sent));
    if (!(await refuses(answer)) || (isYoung(sent, 30) && Date.now() < stubborn[place])) return answer;
    let now = sent;
    let renewed = true;
    try {
      now = current(sent);
      if (now.version === sent.version || !isGood(now)) now = current(await wait(renewal(now, true), timeout, signal));
    } catch (failure) {
      if (!once) throw failure;
      renewed = false;
    }
    if (once) return Object.assign(answer, { whyNotReplayed: error("not_replayable", "a spent body", { renewed }) });
    free(answer);
    const again = await send(headersOf(now));
    if (!(await refuses(again))) delete stubborn[place];
    else if (isYoung(now, 10)) stubborn[place] = Date.now() + 3e4;
    return again;
  };

  /**
   * The platform's fetch, with the session's token. `unbroken: false` sends a request without.
   * @param {RequestInfo | URL} input @param {RequestInit & { unbroken?: boolean }} [init]
   * @returns {Promise<Response & { whyNotReplayed?: UnbrokenError }>}
   */
  const send = async (input, init = {}) => {
    const request = input instanceof Request ? input : undefined;
    const where = new URL(request?.url ?? `${input}`, home);
    const headers = new Headers(init.headers ?? request?.headers);
    if (!isOurs(where, init.unbroken, headers.get(header))) return fetch(input, init);
    return passage({
      where,
      body: init.body,
      signal: init.signal ?? request?.signal,
      send: (more) => {
        for (const name in more) headers.set(name, more[name]);
        return fetch(request?.clone() ?? input, {
          ...init,
          headers,
          ...(cookie && { credentials: "include" }),
          redirect: redirected(init.redirect ?? request?.redirect),
        });
      },
      show: (answer) => answer,
      read: (answer) => answer.clone().text(),
      free: (answer) => answer.body?.cancel().catch(quiet),
    });
  };

  // ---- axios: beneath its interceptors and transforms, so that these run once, and its config stays as it is --------

  /** Gives the requests of an axios instance the session's token. Returns what undoes it. @param {any} axios */
  const attach = (axios) => {
    const bare = axios.create();
    for (const name in bare.defaults) delete bare.defaults[name];
    const id = axios.interceptors.request.use(
      (/** @type {any} */ config) => ({ ...config, adapter: adapterOver(bare, config.adapter) }),
      null,
      { synchronous: true },
    );
    return () => axios.interceptors.request.eject(id);
  };

  /** @param {any} bare an instance without interceptors @param {any} adapter */
  const adapterOver = (bare, adapter) => async (/** @type {any} */ config) => {
    config.adapter = adapter;
    const where = new URL(bare.getUri(config), home);
    const signal = config.signal ?? config.cancelToken?.toAbortSignal?.();
    /** @type {any} */
    let failure;
    /** @param {object} [more] @returns {Promise<any>} */
    const run = (more) => {
      failure = undefined;
      return bare
        .request({ ...config, transformRequest: undefined, transformResponse: undefined, ...more })
        .catch((/** @type {any} */ caught) => (failure = caught).response ?? Promise.reject(caught));
    };
    const work = isOurs(where, config.unbroken, config.headers.get(header))
      ? passage({
          where,
          body: config.data,
          timeout: config.timeout / 1000 || undefined,
          signal,
          send: (more) =>
            run({
              headers: config.headers.concat(more),
              ...(cookie && { withCredentials: true }),
              ...(strict &&
                !adapter.call && {
                  adapter: "fetch",
                  fetchOptions: { ...config.fetchOptions, redirect: redirected(config.fetchOptions?.redirect) },
                }),
            }),
          show: ({ status, headers, request }) => ({ status, headers, url: request?.responseURL }),
          read: ({ data }) => new Response(data).text(),
          free: quiet,
        })
      : run();
    // Axios has an error of its own for requests that were aborted.
    const response = await work.catch((caught) => (signal?.aborted ? run() : Promise.reject(caught)));
    response.config = config;
    if (failure) throw Object.assign(failure, { config });
    return response;
  };

  // ---- 9: login and logout ------------------------------------------------------------------------------------------

  /** Takes the tokens of an answer as a new login. Throws bad_answer. @param {any} answer */
  const adopt = (answer) => {
    keep(next(), tokensIn(answer));
  };

  /** Logs in; `more` goes along. @param {string} username @param {string} password @param {object} [more] */
  const logIn = async (username, password, more) => {
    const ask = () => call(login, { username, password, ...more });
    // What sets cookies is alone.
    const { status, headers, body } = await (cookie ? alone(ask) : ask());
    const message = `the server answered with status ${status}`;
    const about = { cause: body, reason: body?.reason ?? body?.error, retryAfter: retryAfter(headers) };
    if (holds(refused, status, body)) throw error("access_denied", message, about);
    if (holds(granted, status, body)) return adopt(body);
    throw error(status < 429 ? "invalid_request" : "try_later", message, about);
  };

  /** Asks the server to end the session of some tokens; whether it said yes. @param {Tokens} tokens */
  const tell = async ({ refresh, access }) => {
    try {
      return (await call(logout, { refresh_token: refresh ?? access })).status < 300;
    } catch {
      return false;
    }
  };

  /** Ends the session: here and in all tabs at once, then at the server. Whether the server confirmed it. */
  const logOut = async () => {
    const { tokens } = load();
    save({ ...next(), over: "logged_out" });
    return !!tokens && tell(tokens);
  };

  return {
    fetch: send,
    attach,
    login: logIn,
    logout: logOut,
    adopt,

    /** A good access token, for what is no request. `fresh`: in good time. Empty if it is in a cookie. */
    token: async ({ fresh = false } = {}) => accessOf(await authorize(fresh)),

    /**
     * A ticket of unbroken's own server, for the URL of one connection without headers: a WebSocket, an EventSource, a
     * download. It is good for 30 seconds, and once.
     * @returns {Promise<string>}
     */
    ticket: async () => {
      const answer = await send(`${base}/ticket`, { method: "POST" });
      const { status, headers } = answer;
      if (!answer.ok) throw later(`the server answered with status ${status}`, { retryAfter: retryAfter(headers) });
      return (await answer.json()).ticket;
    },

    /** How the session stands: good, ageing, expired or over. */
    get status() {
      const now = load();
      const state = now.tokens ? ["good", "ageing", "ageing", "expired"][ageOf(now)] : "over";
      return { state, reason: now.over ?? "", renewing: !!flight, version: now.version };
    },

    /**
     * Calls the listener with `tokens`, `renewal` or `over`. Each is told once a tab; `here` is true in the one
     * tab that did it. Returns what undoes it.
     * @param {"tokens" | "renewal" | "over"} type @param {(detail: any) => void} listener
     */
    on(type, listener) {
      const hear = (/** @type {any} */ { detail }) => listener(detail);
      target.addEventListener(type, hear);
      return () => target.removeEventListener(type, hear);
    },

    /** Lets go of the page: no listener and no channel is left. */
    dispose() {
      for (const type in ears) globalThis.removeEventListener?.(type, ears[type]);
      channel?.close();
      channel = undefined;
    },
  };
};
