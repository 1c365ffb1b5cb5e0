// Source files of the browser module, each alone, in Node: run by test_sources.py.
import assert from "node:assert/strict";
import { test } from "node:test";

import { authorizationHeaders, isCovered, isUsable, redirectMode } from "../../browser/src/credentials.js";
import { resolveOptions } from "../../browser/src/options.js";
import { currentRecord, refresh } from "../../browser/src/refresh_rules.js";
import { challengesScheme, matches, parseJson, retryAfter, valueAt } from "../../browser/src/response.js";
import { AGEING, DEAD, GOOD, OLD, isStorm, nextPause, pauseLeft, stageOf } from "../../browser/src/schedule.js";
import { initialRecord, isOutdatedCopy, load, nextLogin, recordOf, save } from "../../browser/src/storage.js";
import { publish } from "../../browser/src/tabs.js";
import { readTokens } from "../../browser/src/tokens.js";

/** Storage as in a browser, of which writing may fail. */
const memory = (isFull = false) => {
  const texts = new Map();
  return {
    getItem: (key) => texts.get(key) ?? null,
    setItem: (key, text) => {
      if (isFull) throw new DOMException("full", "QuotaExceededError");
      texts.set(key, text);
    },
    removeItem: (key) => texts.delete(key),
  };
};

globalThis.localStorage = memory();

/** The state of a session that is logged in, as session.js makes it, with what a test wants otherwise. */
const stateWith = (more = {}, options = {}) => {
  const settings = resolveOptions({ storage: "localStorage", ...options });
  const record = initialRecord(settings);
  const state = {
    ...settings,
    record,
    noticed: record,
    text: null,
    jitter: 0,
    pageStorage: memory(),
    accessTokens: {},
    ownValues: new Set(),
    waiting: new Set(),
    listeners: new Set(),
    refreshTimes: [],
    rejectedAt: {},
    ...more,
  };
  publish(state, recordOf(state, nextLogin(state), tokens()));
  return state;
};
const tokens = (more) => ({ access: "a1", refresh: "r1", prefix: "Bearer ", receivedAt: Date.now(), ...more });
const responding = (...bodies) => {
  const sent = [];
  const fetch = async (url, init) => {
    sent.push({ url: `${url}`, ...init });
    const [status, body, headers] = bodies.shift();
    return new Response(JSON.stringify(body), { status, headers });
  };
  return { fetch, sent };
};

test("schedule: tokens go from good to ageing to old to dead", () => {
  const at = (seconds, canRefresh = true) => stageOf({ lifetime: 100, receivedAt: 0 }, seconds * 1000, canRefresh, 0);
  assert.deepEqual(
    [0, 79, 81, 91, 100].map((seconds) => at(seconds)),
    [GOOD, GOOD, AGEING, OLD, DEAD],
  );
  assert.deepEqual(
    [99, 100].map((seconds) => at(seconds, false)),
    [GOOD, DEAD],
  );
  assert.equal(at(-1), AGEING, "a clock that was set back");
  assert.equal(stageOf({ receivedAt: 0 }, 1e12, true, 0), GOOD, "no lifetime");
});

test("schedule: a failure is paused for, an hour at most, and storms are counted", () => {
  assert.deepEqual(
    [{ at: 500, seconds: 5 }, { at: 0, seconds: 1 }, { at: 1001, seconds: 5 }, { at: 0, seconds: 1e9 }, undefined].map(
      (one) => pauseLeft(one, 1000),
    ),
    [4.5, 0, 0, 3599, 0],
  );
  assert.deepEqual([1, 2, 16, 30].map(nextPause), [2, 4, 30, 30]);
  const limit = { attempts: 2, interval: 30 };
  assert.deepEqual(
    [[], [5e6], [5e6, 5e6]].map((times) => isStorm(times, limit, 5_001_000)),
    [false, false, true],
  );
  assert.equal(isStorm([1000, 5e6], limit, 5_001_000), false);
  assert.equal(isStorm([5e6, 5e6], limit, 4e6), false, "a clock that was set back");
});

test("response: conditions, challenges, pauses and JSON", () => {
  const condition = { status: [200], field: "a.b", values: [1] };
  assert.equal(matches(condition, 200, { a: { b: "1" } }), true);
  assert.equal(matches(condition, 201, { a: { b: "1" } }), false);
  assert.equal(matches({ ...condition, negate: true }, 200, { a: {} }), true);
  assert.equal(matches(condition, 200, [1]), false);
  assert.equal(challengesScheme(null, "Bearer"), true);
  assert.equal(challengesScheme('Basic realm="Bearer "', "Bearer"), false);
  assert.equal(challengesScheme('Bearer error="insufficient_scope"', "Bearer"), false);
  assert.equal(retryAfter(new Headers({ "Retry-After": "7200" })), 3600);
  assert.equal(valueAt({ a: null }, "a.b.c"), undefined);
  assert.equal(parseJson("{"), undefined);
});

test("options: undefined is left out, another backend has only what it is given, https is demanded", () => {
  const own = resolveOptions({ header: undefined });
  assert.deepEqual([own.header, own.idempotencyHeader], ["Authorization", "Idempotency-Key"]);
  assert.equal(own.refresh.url, "http://localhost/auth/refresh");
  const other = resolveOptions({ refresh: { url: "/x?y=1" }, window: null });
  assert.deepEqual([other.login.url, other.idempotencyHeader, other.window], ["", "", null]);
  assert.deepEqual(other.endpoints, ["http://localhost/x", "", ""]);
  assert.throws(() => resolveOptions({ url: "http://shop.example/auth" }), { code: "misconfigured" });
});

test("tokens: dotted paths, a prefix to the letter, and a bad response", () => {
  const settings = resolveOptions({ tokens: { access_token: "data.token", prefix: "data.head" } });
  const read = readTokens(settings, { data: { token: "a", head: "JWT " }, expires_in: "60" });
  assert.deepEqual([read.access, read.prefix, read.lifetime], ["a", "JWT ", 60]);
  assert.throws(() => readTokens(settings, { data: { token: 7 } }), { code: "bad_answer", field: "data.token" });
});

test("storage: a record is read back, and memory replaces a storage that is full", () => {
  const state = stateWith();
  assert.equal(load(state).tokens.access, "a1");
  assert.equal(load(state), load(state), "the same object");
  const full = stateWith({ pageStorage: memory(true) });
  assert.equal(full.pageStorage, undefined);
  assert.equal(load(full).tokens.access, "a1");
  assert.equal(isOutdatedCopy(full, load(full)), undefined);
  save(state, { version: 1, epoch: 1, over: "logged_out" });
  assert.throws(() => currentRecord(state), { code: "session_over", reason: "logged_out" });
});

test("credentials: the token goes to its origins, and own values are known", () => {
  const state = stateWith();
  const api = new URL("http://localhost/orders");
  assert.deepEqual(authorizationHeaders(state, load(state)), { Authorization: "Bearer a1" });
  assert.equal(isUsable(state, load(state)), true);
  assert.equal(isCovered(state, api, undefined, null), true);
  assert.equal(isCovered(state, api, undefined, "Bearer a1"), true);
  assert.equal(isCovered(state, api, undefined, "Bearer mine"), false);
  assert.equal(isCovered(state, api, false, null), false);
  assert.equal(isCovered(state, new URL("http://localhost/auth/refresh"), undefined, null), false);
  assert.equal(isCovered(state, new URL("http://127.0.0.1/orders"), undefined, null), false);
  assert.equal(redirectMode({ header: "token" }, undefined), "error");
  assert.equal(redirectMode({ header: "token" }, "manual"), "manual");
});

test("refresh rules: the idempotency key is stored first and repeated, new tokens are stored", async () => {
  const { fetch, sent } = responding([500, {}], [200, { access_token: "a2", expires_in: 60 }]);
  const state = stateWith({ fetch });
  const before = load(state);
  const record = await refresh(state, before);
  const keys = sent.map(({ headers }) => headers.get("Idempotency-Key"));
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  assert.deepEqual([record.tokens.access, record.tokens.refresh, record.version], ["a2", "r1", before.version + 1]);
  assert.deepEqual(load(state), record);
});

test("refresh rules: only a definite response ends the session", async () => {
  const down = responding([503, {}, { "Retry-After": "30" }]);
  const state = stateWith({ fetch: down.fetch });
  await assert.rejects(refresh(state, load(state)), { code: "try_later", retryAfter: 30 });
  assert.equal(load(state).tokens.access, "a1");
  assert.equal(down.sent.length, 1, "the server asked for a longer pause");
  const refused = responding([400, { error: "invalid_grant", reason: "reuse" }]);
  const ended = stateWith({ fetch: refused.fetch });
  await assert.rejects(refresh(ended, load(ended)), { code: "session_over", reason: "reuse" });
  assert.equal(load(ended).tokens, undefined);
});
