/**
 * The core of a session. `session.js` adds what is more than the rules of refreshing.
 *
 * @import { CoreSession, Options } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 */
import { accessToken, recordStage } from "./credentials.js";
import { UnbrokenError } from "./errors.js";
import { sessionFetch } from "./fetch.js";
import { importTokens, logIn, logOut } from "./login.js";
import { resolveOptions } from "./options.js";
import { authorize, sharedRefresh } from "./refresh_coordinator.js";
import { sendAuthorized } from "./request_flow.js";
import { GOOD } from "./schedule.js";
import { statusOf } from "./status.js";
import { initialRecord, load, openStorage, settled } from "./storage.js";
import { addListener, notice, publish, watchTabs } from "./tabs.js";

/**
 * Return the session of a state.
 * @param {SessionState} state @returns {CoreSession}
 */
export const openSession = (state) => {
  const dispose = watchTabs(state, (type) => wake(state, type));
  state.opened = settled(state).then(() => void notice(state));
  return {
    fetch: (input, init) => sessionFetch(state, input, init),
    send: (request) => sendAuthorized(state, request),
    login: (username, password, more) => logIn(state, username, password, more),
    logout: () => logOut(state),
    importTokens: (body) => importTokens(state, body),
    token: async ({ fresh = false } = {}) => accessToken(state, await authorize(state, fresh)),
    get status() {
      return statusOf(state);
    },
    on: (type, listener) => addListener(state, (other, detail) => other === type && listener(detail)),
    dispose,
    UnbrokenError,
  };
};

/**
 * Return the state of a new session. Throws misconfigured.
 * @param {Options} options @returns {SessionState}
 */
export const newState = (options) => {
  const settings = resolveOptions(options);
  const record = initialRecord(settings);
  return {
    ...settings,
    jitter: Math.random(),
    pageStorage: openStorage(settings),
    text: null,
    record,
    accessTokens: {},
    ownValues: new Set(),
    noticed: record,
    waiting: new Set(),
    listeners: new Set(),
    refreshTimes: [],
    rejectedAt: {},
  };
};

/**
 * Go on after a time asleep or offline.
 * @param {SessionState} state @param {string} type of the event that woke the page
 */
const wake = (state, type) => {
  const record = load(state);
  if (type === "online" && record.failed) publish(state, { ...record, failed: undefined }); // it was the network's fault
  if (globalThis.document?.visibilityState !== "hidden" && recordStage(state, record) !== GOOD)
    sharedRefresh(state, record).catch(() => {});
};
