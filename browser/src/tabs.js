/**
 * What happens to the session in this tab and in others, and the events that tell of it.
 *
 * 1. Every change of the record is noticed in all tabs, by a channel and by the storage's own event.
 * 2. Each event is dispatched once in each tab; `here` is true in the one that caused it.
 * 3. The end of a login frees everything that waits under it, at once.
 * 4. New tokens let everything go on that waits for a refresh, whichever tab has them.
 * 5. A page looks for changes when it wakes from sleep, from the back/forward cache or from a time offline.
 *
 * @import { Events } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 * @import { StoredRecord } from "./storage.js"
 */
import { isUsable } from "./credentials.js";
import { sessionOver } from "./errors.js";
import { initialRecord, load, save } from "./storage.js";

/**
 * Begin to notice changes. Return a function that removes all listeners from the page and closes the channel.
 * @param {SessionState} state @param {(type: string) => void} onWake with the type of the event that woke the page
 */
export const watchTabs = (state, onWake) => {
  state.noticed = load(state);
  const onChange = () => notice(state); // rule 1
  /** @param {Event} event */
  const onEvent = ({ type }) => {
    notice(state); // rule 5
    onWake(type);
  };
  if (state.pageStorage) {
    state.channel = new BroadcastChannel(state.key);
    state.channel.onmessage = onChange;
  }
  /** @type {Record<string, (event: Event) => void>} */
  const listeners = {
    storage: onChange,
    pageshow: onEvent,
    online: onEvent,
    focus: onEvent,
    visibilitychange: onEvent,
  };
  for (const type in listeners) globalThis.addEventListener?.(type, listeners[type]);
  return () => {
    for (const type in listeners) globalThis.removeEventListener?.(type, listeners[type]);
    state.channel?.close();
    state.channel = undefined;
  };
};

/**
 * Store a record, tell all tabs, and return it.
 * @param {SessionState} state @param {StoredRecord} record
 */
export const publish = (state, record) => {
  save(state, record);
  state.channel?.postMessage(0); // rule 1
  notice(state, true);
  return record;
};

/**
 * Look for a change of the record.
 * @param {SessionState} state @param {boolean} [here] whether this tab made it
 */
const notice = (state, here = false) => {
  const record = load(state);
  const { noticed: before, flight } = state;
  if (record.version === before.version && record.epoch === before.epoch) return;
  state.noticed = record;
  if (!record.tokens || record.epoch !== before.epoch) endLogin(state, record, before, here);
  else if (flight && flight.version < record.version && isUsable(state, record)) flight.land(record); // rule 4
  if (record.tokens) emit(state, "tokens", { here });
};

/** @param {SessionState} state @param {StoredRecord} record @param {StoredRecord} before @param {boolean} here */
const endLogin = (state, record, before, here) => {
  const reason = record.tokens ? "other_login" : (record.over ?? "logged_out");
  state.endOfLogin.abort(sessionOver(reason)); // rule 3
  state.endOfLogin = new AbortController();
  const wasLoggedIn = before.tokens && before !== initialRecord(state);
  if (wasLoggedIn && !(here && record.tokens)) emit(state, "over", { reason, here }); // rule 2
};

/** @template {keyof Events} Type @param {SessionState} state @param {Type} type @param {Events[Type]} detail */
export const emit = ({ events }, type, detail) => events.dispatchEvent(new CustomEvent(type, { detail }));

/**
 * Add a listener. Return a function that removes it.
 * @template {keyof Events} Type
 * @param {SessionState} state @param {Type} type @param {(detail: Events[Type]) => void} listener
 */
export const addListener = ({ events }, type, listener) => {
  const onEvent = (/** @type {any} */ { detail }) => listener(detail);
  events.addEventListener(type, onEvent);
  return () => events.removeEventListener(type, onEvent);
};
