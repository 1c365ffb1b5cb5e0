/**
 * unbroken: sessions with an access token and a refresh token that never break, for pages and workers. This file puts
 * the parts of a session together; what users see is described in `api.d.ts`.
 *
 *     session ── login.js            log in, log out, import tokens
 *             ── fetch.js, axios.js  adapters of two HTTP clients over
 *                  request_flow.js       the steps of one request
 *                  refresh_coordinator.js  single flight, and what waits for it
 *                  refresh_rules.js      one refresh
 *                  credentials.js        the token and the requests it goes along with
 *             ── storage.js, tabs.js, lock.js     what tabs share
 *             ── transport.js                     the module's own requests
 *             ── options.js, tokens.js, response.js, schedule.js, errors.js     without state and I/O
 *
 * Each file states its rules at the top, and names the rule at the line that carries it out. What they share is in
 * `state.d.ts`.
 *
 * @import { Options, Session, Status } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 */
import { attach } from "./axios.js";
import { accessToken, recordStage } from "./credentials.js";
import { unexpectedResponse } from "./errors.js";
import { sessionFetch } from "./fetch.js";
import { importTokens, logIn, logOut } from "./login.js";
import { resolveOptions } from "./options.js";
import { authorize, sharedRefresh } from "./refresh_coordinator.js";
import { GOOD } from "./schedule.js";
import { initialRecord, load, openStorage } from "./storage.js";
import { addListener, publish, watchTabs } from "./tabs.js";

export { UnbrokenError } from "./errors.js";

/** @type {Status["state"][]} */
const STATES = ["good", "ageing", "ageing", "expired"]; // of GOOD, AGEING, OLD, DEAD

/**
 * Create a session, for all requests of a page. Throws misconfigured.
 * @param {Options} [options] @returns {Session}
 */
export const createSession = (options = {}) => {
  const state = newState(options);
  const dispose = watchTabs(state, (type) => wake(state, type));
  return {
    fetch: (input, init) => sessionFetch(state, input, init),
    attach: (axios) => attach(state, axios),
    login: (username, password, more) => logIn(state, username, password, more),
    logout: () => logOut(state),
    importTokens: (body) => importTokens(state, body),
    token: async ({ fresh = false } = {}) => accessToken(state, await authorize(state, fresh)),

    ticket: async () => {
      const response = await sessionFetch(state, `${state.base}/ticket`, { method: "POST" });
      if (!response.ok) throw unexpectedResponse("try_later", response);
      return (await response.json()).ticket;
    },

    get status() {
      const record = load(state);
      return {
        state: record.tokens ? STATES[recordStage(state, record)] : "over",
        reason: record.over ?? "",
        refreshing: !!state.flight,
        version: record.version,
      };
    },

    on: (type, listener) => addListener(state, type, listener),
    dispose,
  };
};

/** @param {Options} options @returns {SessionState} */
const newState = (options) => {
  const settings = resolveOptions(options);
  const record = initialRecord(settings);
  return {
    ...settings,
    fetch: globalThis.fetch,
    jitter: Math.random(),
    pageStorage: openStorage(settings),
    text: null,
    record,
    accessTokens: {},
    ownValues: new Set(),
    noticed: record,
    endOfLogin: new AbortController(),
    events: new EventTarget(),
    refreshTimes: [],
    leftAloneUntil: {},
  };
};

/**
 * Go on after a time asleep or offline.
 * @param {SessionState} state @param {string} type of the event that woke the page
 */
const wake = (state, type) => {
  const record = load(state);
  if (type === "online" && record.failed) publish(state, { ...record, failed: undefined }); // it was the network's fault
  if (recordStage(state, record) !== GOOD) sharedRefresh(state, record).catch(() => {});
};
