/**
 * What applications see of a session: its status, when it changes, and when it is known.
 *
 * 1. As long as nothing changes the status is the same object, so that frameworks can compare it.
 * 2. Tokens age without an event. Who subscribes is told within a second.
 * 3. With cookies no script knows whether there is a session before a refresh has told, nor whose it is: the server
 *    tells, once.
 *
 * @import { Session, Status } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 */
import { recordStage } from "./credentials.js";
import { authorize } from "./refresh_coordinator.js";
import { initialRecord, load } from "./storage.js";
import { addListener, emit, notice, publish } from "./tabs.js";

/** @type {Status["state"][]} */
const STATES = ["good", "ageing", "ageing", "expired"]; // of GOOD, AGEING, OLD, DEAD
const LOOK_SECONDS = 1;

/**
 * Return the status.
 * @param {SessionState} state @returns {Status}
 */
export const statusOf = (state) => {
  const record = notice(state);
  const { tokens, over = "", version } = record;
  const status = {
    state: tokens ? STATES[recordStage(state, record)] : "over",
    reason: over,
    refreshing: !!state.flight,
    version,
    user: tokens?.user,
  };
  const isSame = Object.entries(status).every(([name, value]) => /** @type {any} */ (state.shown)?.[name] === value);
  return isSame ? /** @type {any} */ (state.shown) : (state.shown = Object.freeze(status)); // rule 1
};

/**
 * Call a listener when the status has changed. Return a function that ends that.
 * @param {SessionState} state @param {() => void} listener
 */
export const subscribe = (state, listener) => {
  let last = statusOf(state);
  const look = () => {
    if (last !== (last = statusOf(state))) listener();
  };
  const removeListener = addListener(state, look);
  const timer = setInterval(look, LOOK_SECONDS * 1000); // rule 2
  return () => {
    clearInterval(timer);
    removeListener();
  };
};

/**
 * Ask unbroken's own server who is logged in, if nothing else has said so. Never rejects.
 * @param {SessionState} state @param {Session["fetch"]} fetch of the session
 */
export const identify = async (state, fetch) => {
  const { tokens, epoch } = load(state);
  if (!tokens || tokens.user || !state.usesCookies || !state.isOwnServer) return;
  const response = await fetch(`${state.base}/session`).catch(() => undefined);
  const user = response?.ok && (await response.json().catch(() => undefined));
  const record = load(state);
  if (!user || !record.tokens || record.epoch !== epoch) return;
  publish(state, { ...record, tokens: { ...record.tokens, user } });
  emit(state, "status", {});
};

/**
 * Return the status as soon as it is known whether there is a session, and whose.
 * @param {SessionState} state @param {Session["fetch"]} fetch of the session
 */
export const ready = async (state, fetch) => {
  await state.opened;
  if (state.usesCookies && notice(state) === initialRecord(state)) await authorize(state, false).catch(() => {}); // rule 3
  await identify(state, fetch);
  return statusOf(state);
};
