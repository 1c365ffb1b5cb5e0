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
 * The file is served without its comments and indentation: a comment stands on lines of its own, or is a type.
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
 * @property {string} [url] where it is
 * @property {string} [prefix] of unbroken's own endpoints
 * @property {Ask} [refresh]
 * @property {Ask} [login]
 * @property {Ask} [step] the second step of a login
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
 * @typedef {{ access?: string, refresh?: string, type: string, bearer: boolean, lifetime?: number, at: number,
 *   seq?: number, sid?: unknown }} Tokens
 * @typedef {{ version: number, epoch: number, tokens?: Tokens, over?: string, attempt?: string, failures?: number,
 *   failed?: { code: string, message: string, field?: string, until: number } }} Stored
 * @typedef {{ status: number, headers: Headers, text: () => Promise<string>, url?: string }} Answer
 * @typedef {{ reason?: string, retryAfter?: number, field?: string, renewed?: boolean, lost?: boolean,
 *   cause?: unknown }} About
 * @typedef {Record<string, (detail: any) => void>} Listeners
 */

// ---- errors and answers, as values ----------------------------------------------------------------------------------

/**
 * `code` is stable: session_over (log in again; `reason`), try_later, renewal_storm, too_many_attempts (nothing is lost;
 * `retryAfter`), not_replayable (`renewed`), access_denied (`reason`), invalid_request, bad_answer (`field`),
 * misconfigured.
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
const dig = (body, path) =>
  path.split(".").reduce((at, name) => at?.[name], body);

/** @param {string | null} text */
const parsed = (text) => {
  try {
    return JSON.parse(text ?? "");
  } catch {}
};

/** Whether an answer fulfils a condition. @param {When} when @param {number} code @param {unknown} [body] */
const holds = ({ status, field, values, negate = false }, code, body) =>
  (!status || status.includes(code)) &&
  (!field || (isObject(body) && !!values?.some((one) => `${one}` === `${dig(body, field)}`) !== negate));

/** Whether a 401 is about a token of this scheme (RFC 6750 §3). @param {string | null} header @param {string} scheme */
const challenges = (header, scheme) => {
  const plain = header?.replace(/error="(\w+)"/g, "error=$1").replace(/"(\\.|[^"\\])*"/g, "");
  if (plain === undefined) return true;
  return RegExp(`(^|[ ,])(bearer|${scheme})([ ,]|$)`, "i").test(plain) && !/error=(insufficient_sc|invalid_req)/.test(plain);
};

/** A positive number, also from a text. @param {any} value */
const positive = (value) => {
  const number = parseFloat(value);
  return number > 0 && number < Infinity ? number : undefined;
};

/** `exp − iat` of a JWT, read without trusting it. @param {string} token */
const lifetimeOf = (token) => {
  try {
    const claims = parsed(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return positive(claims.exp - claims.iat);
  } catch {}
};

/** Seconds that `Retry-After` asks for, at most an hour. @param {Headers} headers */
const retryAfter = (headers) => Math.min(positive(headers.get("Retry-After")) ?? 0, 3600);

// ---- waiting --------------------------------------------------------------------------------------------------------

/** @param {number} seconds */
const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
const quiet = () => {};

/**
 * What comes of the work, unless the time or a signal says otherwise first.
 * @template T @param {Promise<T>} work @param {number} seconds @param {(AbortSignal | null | undefined)[]} signals
 * @returns {Promise<T>}
 */
const within = (work, seconds, ...signals) =>
  new Promise((resolve, reject) => {
    const timer = AbortSignal.timeout(seconds * 1000);
    const stop = AbortSignal.any([timer, ...signals.filter((signal) => signal != null)]);
    const leave = () => reject(timer.aborted ? later("the renewal takes too long") : stop.reason);
    if (stop.aborted) leave();
    stop.addEventListener("abort", leave);
    work.then(resolve, reject);
  });

// ---- the session ----------------------------------------------------------------------------------------------------

/** A session, for all requests of a page. Throws misconfigured. @param {Dialect & Settings} [options] */
export const createSession = (options = {}) => {
  const home = globalThis.location?.href ?? "http://localhost";
  const base = new URL(options.url ?? "/", home).href.replace(/\/$/, "");
  const endpoints = base + (options.prefix ?? "/auth");
  const [refresh, login, step, logout] = /** @type {[Ask, Ask?, Ask?, Ask?]} */ (
    /** @type {const} */ (["refresh", "login", "step", "logout"]).map(
      (name) => options[name] ?? (options.refresh ? undefined : { url: `${endpoints}/${name === "step" ? "login/step" : name}` }),
    )
  );
  const {
    header = "Authorization",
    scheme = "Bearer",
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
  const fetch = globalThis.fetch;
  const jitter = Math.random();
  const places = [refresh, login, step, logout].flatMap((ask) => (ask ? [new URL(ask.url, base).href.split("?")[0]] : []));
  const origins = (options.origins ?? places.slice(0, 1)).map((place) => new URL(place, base).origin);
  for (const place of [...places, ...origins])
    if (!options.allowPlainHttp && !/^(https|http:..(localhost|127(\.\d+)+|\[::1])(?![^:/])):?/.test(place))
      throw error("misconfigured", `use https for ${place}`);
  const key = options.key ?? "unbroken " + places[0];

  // ---- the record: one text under one key ---------------------------------------------------------------------------

  // In cookies there may be a session that no script knows of: one exchange tells.
  /** @type {Stored} */
  const nothing = cookie
    ? { version: 0, epoch: 0, tokens: { type: "", bearer: false, lifetime: 1, at: 0 } }
    : { version: 0, epoch: 0, over: "not_logged_in" };
  /** @type {string | null} */
  let text = null;
  let record = nothing;
  /** @type {Storage | undefined} */
  let store;
  try {
    if (storage !== "memory") store = globalThis[storage === "sessionStorage" ? storage : "localStorage"];
  } catch {} // a privacy mode: memory will do

  /** The newest record: the same object as long as it is the same. */
  const load = () => {
    const now = store ? store.getItem(key) : text;
    if (now !== text) {
      text = now;
      const read = parsed(now);
      record = read?.epoch ? read : nothing;
    }
    return record;
  };

  /** @param {Stored} next */
  const save = (next) => {
    text = JSON.stringify((record = next));
    try {
      store?.setItem(key, text);
      if (storage === "sessionStorage" && next.tokens) localStorage.setItem(key, `${next.epoch} ${next.version}`);
    } catch {
      store = undefined; // full, or taken away
    }
    channel?.postMessage(0);
    look(true);
    return next;
  };

  /** A duplicated tab has a copy of sessionStorage, whose refresh token may be spent. @param {Stored} mine */
  const isCopy = (mine) => {
    const [epoch, version] = (storage === "sessionStorage" && store && localStorage.getItem(key)?.split(" ")) || [];
    return epoch === `${mine.epoch}` && Number(version) > mine.version;
  };

  /** The newest record of the login that `sent` is of. Throws session_over if that is gone. @param {Stored} sent */
  const current = (sent) => {
    const now = load();
    if (!now.tokens) throw over(now.over ?? "logged_out");
    if (now.epoch !== sent.epoch) throw over("other_login");
    return now;
  };

  // An access token that comes with cookies stays in memory.
  let held = { version: -1, access: "" };

  /** @param {Stored} now */
  const accessOf = (now) => now.tokens?.access ?? (now.version === held.version ? held.access : "");

  /** @param {number} version @param {number} epoch @param {Tokens} tokens */
  const keep = (version, epoch, tokens) => {
    if (cookie) {
      held = { version, access: tokens.access ?? "" };
      tokens = { ...tokens, access: undefined };
    }
    return save({ version, epoch, tokens });
  };

  /** The record's version and epoch after a login or logout. @returns {[number, number]} */
  const next = () => {
    const { version, epoch } = load();
    const then = Math.max(epoch + 1, Date.now());
    return [Math.max(version + 1, then), then];
  };

  // ---- news, of this tab and of others ------------------------------------------------------------------------------

  const target = new EventTarget();
  /** @param {string} type @param {object} detail */
  const emit = (type, detail) => target.dispatchEvent(new CustomEvent(type, { detail }));
  /** @type {{ epoch: number, version: number, land: (now: Stored) => void, promise: Promise<Stored> } | undefined} */
  let flight;
  let gone = new AbortController();
  let noticed = load();

  const look = (here = false) => {
    const [now, before] = [load(), noticed];
    if (now.version === before.version && now.epoch === before.epoch) return;
    noticed = now;
    const reason = now.tokens ? "other_login" : (now.over ?? "logged_out");
    const isOther = !now.tokens || now.epoch !== before.epoch;
    if (isOther) {
      gone.abort(over(reason));
      gone = new AbortController();
    } else if (flight && flight.version < now.version && isGood(now)) flight.land(now);
    if (isOther && before.tokens && before !== nothing && !(here && now.tokens)) emit("over", { reason, here });
    if (now.tokens) emit("tokens", { version: now.version, here });
  };

  /** After sleep, a stay in the back/forward cache, a time offline. @param {Event} event */
  const wake = ({ type }) => {
    look();
    const now = load();
    if (type === "online" && now.failed) save({ ...now, failed: undefined });
    if (now.tokens && ageOf(now)) renewal(now).catch(quiet);
  };

  const channel = store && globalThis.BroadcastChannel && new BroadcastChannel(key);
  if (channel) channel.onmessage = () => look();
  /** @type {Record<string, (event: any) => void>} */
  const ears = { storage: () => look(), pageshow: wake, online: wake, focus: wake, visibilitychange: wake };
  for (const type in ears) globalThis.addEventListener?.(type, ears[type]);

  // ---- 1: when to renew ---------------------------------------------------------------------------------------------

  /** 0 in good time, 1 ageing, 2 old, 3 dead. @param {Stored} now */
  const ageOf = ({ tokens }) => {
    const lifetime = tokens?.lifetime ?? Infinity;
    const age = (Date.now() - (tokens?.at ?? 0)) / 1000;
    const advisory = cookie || tokens?.refresh ? Math.min(lifetime * 0.2, 300) : 0;
    const mandatory = Math.min(lifetime * 0.1, 10, advisory);
    if (lifetime === Infinity) return 0;
    if (age >= lifetime - mandatory) return age < lifetime ? 2 : 3;
    // A clock that was set back says nothing about the age.
    return age < 0 || age >= lifetime - advisory + (advisory - mandatory) * jitter * 0.5 ? 1 : 0;
  };

  /** Whether the token can be sent. @param {Stored} now */
  const isGood = (now) => ageOf(now) < 3 && (!now.tokens?.bearer || !!accessOf(now));

  // ---- 2 to 5: renewing ---------------------------------------------------------------------------------------------

  /** @type {number[]} */
  const renewals = [];

  /**
   * One request of the library's own: without an old token, by nobody's hooks, through no redirect and no cache.
   * @param {Ask} ask @param {Record<string, any>} values @param {Record<string, string>} [more]
   */
  const call = async ({ url, method = "POST", carry = "json", names = {}, extra, headers: fixed }, values, more) => {
    const where = new URL(url, base);
    const headers = new Headers({ Accept: "application/json", ...(cookie && { "X-Unbroken": "1" }), ...more, ...fixed });
    /** @type {Record<string, any>} */
    const carried = { ...extra };
    for (const name in values) if (values[name]) carried[names[name] ?? name] = values[name];
    /** @type {BodyInit | undefined} */
    let body;
    if (carry === "json") headers.set("Content-Type", "application/json");
    if (carry === "json") body = JSON.stringify(carried);
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
        credentials: cookie ? "include" : "same-origin",
        signal: AbortSignal.timeout(exchangeTimeout * 1000),
      });
      return { status: answer.status, headers: answer.headers, body: parsed(await answer.text()) };
    } catch (cause) {
      throw later("the server did not answer", { cause, lost: true });
    }
  };

  /** The tokens in an answer. Throws bad_answer. @param {any} body @returns {Tokens} */
  const tokensIn = (body) => {
    const at = (/** @type {string} */ name) => options.tokens?.[name] ?? name;
    const textAt = (/** @type {string} */ path, needed = false) => {
      const value = dig(body, path) || undefined;
      if (value === undefined ? needed : !/^[ -~]+$/.test(value) || !value.trim)
        throw error("bad_answer", `no text at ${path}`, { field: isObject(body) ? path : "" });
      return value;
    };
    const access = textAt(at("access_token"), !cookie);
    const prefix = options.tokens?.prefix;
    return {
      access,
      refresh: textAt(at("refresh_token")),
      type: prefix ? (dig(body, prefix) === "" ? "" : textAt(prefix, true)) : `${dig(body, at("token_type")) || "Bearer"} `,
      bearer: !!access,
      lifetime: positive(dig(body, at("expires_in"))) ?? lifetimeOf(access ?? ""),
      at: Date.now(),
      seq: positive(dig(body, at("refresh_seq"))),
      sid: body.sid,
    };
  };

  /**
   * Runs the work alone among all tabs. Only exchanges, and what else sets cookies, ever hold the lock, and nobody waits
   * for it for ever: then the stored attempt id has to do, as in browsers without locks.
   * @template T @param {() => Promise<T>} work @returns {Promise<T>}
   */
  const alone = (work) => {
    const locks = globalThis.navigator?.locks;
    if (!store || !locks) return work();
    return new Promise((resolve, reject) => {
      const hold = async () => {
        const { version } = load();
        const done = work();
        resolve(done);
        await done.catch(quiet);
        // It takes a moment until other tabs can read what was written.
        if (load().version !== version) await sleep(0.05);
      };
      locks.request(key, { signal: AbortSignal.timeout(exchangeTimeout * 1500) }, hold).catch(() => work().then(resolve, reject));
    });
  };

  /** The renewal that all in this tab share. Rejects with try_later or renewal_storm. @param {Stored} seen */
  const renewal = async (seen, challenged = false) => {
    if (flight?.epoch === seen.epoch) return flight.promise;
    const now = Date.now();
    const { failed } = load();
    const wait = ((failed?.until ?? 0) - now) / 1000;
    if (failed && wait > 0 && wait < 3601) throw error(failed.code, failed.message, { field: failed.field, retryAfter: wait });
    if (limit && (challenged || !ageOf(seen))) {
      if (now - renewals[renewals.length - limit.attempts] < limit.interval * 1000)
        throw error("renewal_storm", "good new tokens are rejected", { retryAfter: limit.interval });
      renewals.push(now);
    }
    const { promise, resolve, reject } = /** @type {PromiseWithResolvers<Stored>} */ (Promise.withResolvers());
    const mine = (flight = { epoch: seen.epoch, version: seen.version, land: resolve, promise });
    alone(() => renew(seen)).then(resolve, reject);
    return promise.finally(() => flight === mine && (flight = undefined));
  };

  /** Tokens newer than `seen`, exchanged or adopted. @param {Stored} seen */
  const renew = async (seen) => {
    let now = current(seen);
    if (now.version > seen.version && isGood(now)) return now;
    if (!cookie && !now.tokens?.refresh) return end(now, "no_refresh_token");
    if (isCopy(now)) return end(now, "other_tab");
    if (!now.attempt) now = save({ ...now, attempt: crypto.getRandomValues(new Uint32Array(4)).join("-") });
    emit("renewal", { state: "begun" });
    for (let tries = 1; ; tries++) {
      try {
        const fresh = await exchange(now);
        emit("renewal", { state: "done" });
        return fresh;
      } catch (caught) {
        const failure = /** @type {UnbrokenError & { lost?: boolean }} */ (caught);
        const moved = current(now);
        if (moved.version > now.version && isGood(moved)) return moved;
        if (failure.code === "session_over") return end(now, failure.reason ?? "");
        if (failure.code !== "try_later" || tries > 2 || failure.retryAfter > 2) {
          emit("renewal", { state: "failed", error: failure });
          throw remembered(moved, failure);
        }
        await sleep(failure.lost && tries === 1 ? 0 : Math.max(tries === 1 ? 0.2 : 1, failure.retryAfter));
        current(now);
      }
    }
  };

  /** @param {Stored} now @param {UnbrokenError} failure */
  const remembered = (now, failure) => {
    const { code, message, field } = failure;
    const failures = (now.failures ?? 0) + 1;
    failure.retryAfter = Math.max(failure.retryAfter, Math.min(30, 2 ** (failures - 1)) * (0.5 + jitter / 2));
    save({ ...now, failures, failed: { code, message, field, until: Date.now() + failure.retryAfter * 1000 } });
    return failure;
  };

  /** One exchange, and its tokens stored. @param {Stored} now */
  const exchange = async (now) => {
    const more = attempt ? { [attempt]: `"${now.attempt}"` } : {};
    const { status, headers, body } = await call(refresh, { refresh_token: now.tokens?.refresh }, more);
    const word = body?.reason;
    if (holds(ended, status, body)) throw over(/^\w+$/.test(word ?? "") ? word : "invalid_grant");
    if (cookie && word === "no_refresh_token") throw over(now.attempt && now.tokens?.at ? word : "not_logged_in");
    if (!holds(granted, status, body))
      throw later(`the server answered with status ${status}`, { retryAfter: retryAfter(headers) });
    if (!isObject(body)) throw later("the server's answer cannot be read", { lost: true });
    return arrived(now, tokensIn(body));
  };

  /** Stores new tokens, unless the login has ended or others were faster. @param {Stored} asked @param {Tokens} fresh */
  const arrived = async (asked, fresh) => {
    const { epoch, version, tokens } = load();
    if (!tokens || epoch !== asked.epoch) await tell(fresh);
    current(asked);
    if (tokens?.sid && fresh.sid !== tokens.sid && cookie) return keep(...next(), fresh);
    if (fresh.seq && tokens?.seq && fresh.seq <= tokens.seq) throw later("the server's tokens are not newer");
    return keep(version + 1, epoch, { ...fresh, refresh: fresh.refresh ?? tokens?.refresh });
  };

  /** @param {Stored} seen @param {string} reason @returns {Stored} */
  const end = ({ version, epoch }, reason) => {
    save({ version: version + 1, epoch, over: reason });
    throw over(reason);
  };

  // ---- 6 to 8: requests ---------------------------------------------------------------------------------------------

  // Values of the header that were ours, and endpoints that are left alone for a while.
  /** @type {Set<string>} */
  const given = new Set();
  /** @type {Map<string, number>} */
  const stubborn = new Map();

  /** What goes along with a request. @param {Stored} [now] @returns {Record<string, string>} */
  const headersOf = (now) => {
    const token = now && accessOf(now);
    if (!token) return cookie ? { "X-Unbroken": "1" } : {};
    const before = options.tokens?.prefix || scheme === null ? now.tokens?.type : scheme && scheme + " ";
    if (given.size > 9) given.clear();
    given.add(before + token);
    return { [header]: before + token };
  };

  /** @param {URL} where @param {unknown} wish @param {string | null | undefined} value of the header */
  const isOurs = (where, wish, value) =>
    wish !== false && origins.includes(where.origin) && !places.includes(where.origin + where.pathname) && (!value || given.has(value));

  /** A token that can be sent. @param {boolean} fresh @param {(work: Promise<Stored>) => Promise<Stored>} wait */
  const authorize = async (fresh, wait) => {
    const now = load();
    if (!now.tokens) throw over(now.over ?? "logged_out");
    const age = ageOf(now);
    if (isGood(now) && !age) return now;
    const work = renewal(now);
    work.catch(quiet);
    if (isGood(now) && age === 1 && !fresh) return now;
    try {
      return current(await wait(work));
    } catch (failure) {
      if (isGood(current(now))) return current(now);
      throw failure;
    }
  };

  /** Whether an answer is about our token. @param {Answer} answer @param {URL} where */
  const isChallenge = async ({ status, headers, text, url }, where) => {
    // What answers behind a redirect to another origin did not get it.
    if (url && new URL(url).origin !== where.origin) return false;
    if (!challenge) return status === 401 && challenges(headers.get("WWW-Authenticate"), scheme ?? "");
    if (!challenge.field) return holds(challenge, status);
    if (challenge.status && !challenge.status.includes(status)) return false;
    if (!/\bjson\b/i.test(headers.get("Content-Type") ?? "")) return false;
    return Number(headers.get("Content-Length")) <= 1e6 && holds(challenge, status, parsed(await text().catch(() => "")));
  };

  /**
   * One request on its way: what fetch and axios have in common.
   * @template T @param {{ where: URL, method: string, once: boolean, patience?: number, signal?: AbortSignal | null,
   *   send: (headers: Record<string, string>) => Promise<T>, show: (answer: T) => Answer, free: (answer: T) => void,
   *   note: (answer: T, why: UnbrokenError) => void }} request @returns {Promise<T>}
   */
  const passage = async ({ where, method, once, patience = waitTimeout, signal, send, show, free, note }) => {
    /** @param {Promise<Stored>} work */
    const wait = (work) => within(work, patience, signal, gone.signal);
    if (options.visitors && /^(not_logged_in|logged_out)$/.test(load().over ?? "")) return send({});
    const sent = current(await authorize(once, wait));
    const answer = await send(headersOf(sent));
    const endpoint = method + where.origin + where.pathname;
    const ageOfTokens = (/** @type {Stored} */ now) => Date.now() - (now.tokens?.at ?? 0);
    if (!(await isChallenge(show(answer), where))) return answer;
    if (ageOfTokens(sent) < 3e4 && Date.now() < (stubborn.get(endpoint) ?? 0)) return answer;
    let now = load();
    let renewed = true;
    try {
      now = current(sent);
      if (now.version === sent.version || !isGood(now)) now = current(await wait(renewal(now, true)));
    } catch (failure) {
      if (!once) throw failure;
      renewed = false;
    }
    if (once) {
      note(answer, error("not_replayable", "the body could be sent only once", { renewed }));
      return answer;
    }
    free(answer);
    const again = await send(headersOf(now));
    const refusedAgain = await isChallenge(show(again), where);
    if (!refusedAgain) stubborn.delete(endpoint);
    else if (ageOfTokens(now) < 1e4) stubborn.set(endpoint, Date.now() + 3e4);
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
      method: init.method ?? request?.method ?? "GET",
      once: init.body instanceof ReadableStream,
      signal: init.signal ?? request?.signal,
      send: (more) => {
        const dressed = new Headers(headers);
        for (const name in more) dressed.set(name, more[name]);
        const { credentials = cookie ? "include" : undefined, redirect = header === "Authorization" ? undefined : "error" } = init;
        return fetch(request?.clone() ?? input, { ...init, headers: dressed, credentials, redirect });
      },
      show: (answer) => ({ ...pick(answer), text: () => answer.clone().text() }),
      free: (answer) => answer.body?.cancel().catch(quiet),
      note: (answer, whyNotReplayed) => Object.assign(answer, { whyNotReplayed }),
    });
  };

  /** @param {Response} answer */
  const pick = ({ status, headers, url }) => ({ status, headers, url });

  // ---- axios: beneath its interceptors and transforms, so that these run once, and its config stays as it is --------

  /** @type {Set<any>} */
  const adapters = new Set();
  /** @type {Set<() => void>} */
  const attached = new Set();

  /** Gives the requests of an axios instance the session's token. Returns what undoes it. @param {any} axios */
  const attach = (axios) => {
    const bare = axios.create();
    for (const name in bare.defaults) delete bare.defaults[name];
    const id = axios.interceptors.request.use(
      (/** @type {any} */ config) => {
        if (!adapters.has(config.adapter)) adapters.add((config.adapter = adapterOver(bare, config.adapter)));
        return config;
      },
      null,
      { synchronous: true },
    );
    const detach = () => axios.interceptors.request.eject(id);
    attached.add(detach);
    return detach;
  };

  /** @param {any} bare @param {any} adapter */
  const adapterOver = (bare, adapter) => async (/** @type {any} */ config) => {
    config.adapter = adapter;
    const signal = config.signal ?? config.cancelToken?.toAbortSignal();
    const where = new URL(bare.getUri(config), home);
    /** @param {object} [more] */
    const run = (more) => {
      const transforms = { transformRequest: undefined, transformResponse: undefined };
      return bare.request({ ...config, ...transforms, ...more }).then(
        (/** @type {any} */ response) => ({ response }),
        (/** @type {any} */ failure) => {
          if (!failure.response) throw failure;
          return { response: failure.response, failure };
        },
      );
    };
    /** @type {{ response: any, failure?: any }} */
    const { response, failure } = await (!isOurs(where, config.unbroken, config.headers.get(header))
      ? run()
      : passage({
          where,
          method: config.method,
          once: config.data instanceof ReadableStream,
          patience: config.timeout / 1000 || waitTimeout,
          signal,
          send: (more) => {
            // XMLHttpRequest follows redirects with every header but Authorization.
            const strict = header !== "Authorization" && typeof adapter !== "function";
            return run({
              headers: config.headers.concat(more),
              ...(cookie && { withCredentials: true }),
              ...(strict && { adapter: "fetch", fetchOptions: { ...config.fetchOptions, redirect: "error" } }),
            });
          },
          show: ({ response: { status, headers, data, request } }) => ({
            status,
            headers: new Headers({ ...headers }),
            url: request?.responseURL ?? request?.url,
            text: async () => (`${data}` === "[object Object]" ? JSON.stringify(data) : new Response(data).text()),
          }),
          free: quiet,
          note: ({ response }, whyNotReplayed) => Object.assign(response, { whyNotReplayed }),
        }).catch((caught) => {
          // Axios has an error of its own for this.
          if (signal?.aborted) return run();
          throw caught;
        }));
    response.config = config;
    if (failure) throw Object.assign(failure, { config });
    return response;
  };

  // ---- 9: login and logout ------------------------------------------------------------------------------------------

  /** Takes the tokens of an answer as a new login. Throws bad_answer. @param {any} answer */
  const adopt = (answer) => {
    keep(...next(), tokensIn(answer));
  };

  /**
   * Logs in. Where the server wants a code too, `secondStep` is asked for it, by its kind and a hint.
   * @param {string} username @param {string} password
   * @param {{ secondStep?: (kind: string, hint?: string) => string | Promise<string> } & Record<string, any>} [more]
   */
  const logIn = async (username, password, { secondStep, ...extra } = {}) => {
    // What sets cookies is alone.
    /** @param {Ask | undefined} ask @param {object} values */
    const asking = (ask, values) => {
      if (!ask) throw error("misconfigured", "the dialect has no login");
      return cookie ? alone(() => call(ask, values)) : call(ask, values);
    };
    let { status, headers, body } = await asking(login, { username, password, ...extra });
    while (secondStep && body?.error === "mfa_required") {
      const code = await secondStep(body.challenge_type, body.hint);
      ({ status, headers, body } = await asking(step, { mfa_token: body.mfa_token, code }));
    }
    const message = `the server answered with status ${status}`;
    const about = { reason: body?.reason ?? body?.error, retryAfter: retryAfter(headers) };
    if (holds(refused, status, body)) throw error("access_denied", message, about);
    if (holds(granted, status, body)) return adopt(body);
    throw error(status === 429 ? "too_many_attempts" : status > 499 ? "try_later" : "invalid_request", message, about);
  };

  /** Asks the server to end the session of some tokens; whether it said yes. @param {Tokens} tokens */
  const tell = async (tokens) => {
    try {
      return !!logout && (await call(logout, { refresh_token: tokens.refresh ?? tokens.access })).status < 300;
    } catch {
      return false;
    }
  };

  /** Ends the session: here and in all tabs at once, then at the server. Whether the server confirmed it. */
  const logOut = async () => {
    const { tokens } = load();
    const [version, epoch] = next();
    save({ version, epoch, over: "logged_out" });
    return !!tokens && tell(tokens);
  };

  return {
    fetch: send,
    attach,
    login: logIn,
    logout: logOut,
    adopt,

    /** A good access token, for a WebSocket or an EventSource. `fresh`: in good time. Empty if it is in a cookie. */
    token: async ({ fresh = false } = {}) => accessOf(await authorize(fresh, (work) => within(work, waitTimeout, gone.signal))),

    /** How the session stands: good, ageing, expired or over. */
    get status() {
      const now = load();
      const state = now.tokens ? ["good", "ageing", "ageing", "expired"][ageOf(now)] : "over";
      const { lifetime = Infinity, at = 0 } = now.tokens ?? {};
      return { state, reason: now.over ?? "", expiresIn: lifetime - (Date.now() - at) / 1000, renewing: !!flight, version: now.version };
    },

    /**
     * Calls the listener with `tokens`, `renewal` or `over`. Each is told once a tab; `here` is true in the one tab that
     * did it. Returns what undoes it.
     * @param {"tokens" | "renewal" | "over"} type @param {(detail: any) => void} listener
     */
    on(type, listener) {
      const hear = (/** @type {any} */ event) => listener(event.detail);
      target.addEventListener(type, hear);
      return () => target.removeEventListener(type, hear);
    },

    /** Lets go of the page: no listener, no channel, no axios instance. */
    dispose() {
      for (const type in ears) globalThis.removeEventListener?.(type, ears[type]);
      for (const detach of attached) detach();
      channel?.close();
    },
  };
};
