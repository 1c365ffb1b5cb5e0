/**
 * What happens to the session in this tab and in others, and the events that tell of it.
 *
 * 1. Every change of the record is noticed in all tabs, by a channel and by the storage's own event.
 * 2. Each event is dispatched once in each tab; `here` is true in the one that caused it.
 * 3. The end of a login frees everything that waits under it, at once.
 * 4. New tokens let everything go on that waits for a refresh, whichever tab has them.
 * 5. A page looks for changes when it wakes from sleep, from the back/forward cache or from a time offline. What runs
 *    because of that does not run when it is hidden.
 * 6. With cookies the tabs tell each other the access token that none of them stores. It travels by the channel, which
 *    only pages of the same origin hear.
 * 7. A listener that fails does so for itself.
 *
 * @import { Events } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 * @import { StoredRecord } from "./storage.js"
 */
import { isUsable } from "./credentials.js";
import { sessionOver } from "./errors.js";
import { initialRecord, load, save, settled } from "./storage.js";

/**
 * Begin to notice changes. Return a function that removes all listeners from the page and closes the channel.
 * @param {SessionState} state @param {(type: string) => void} onWake with the type of the event that woke the page
 */
export const watchTabs = (state, onWake) => {
  const { pageStorage, usesCookies, key } = state;
  state.noticed = load(state);
  const onChange = () => notice(state); // rule 1
  /** @param {Event} event */
  const onEvent = ({ type }) => {
    notice(state); // rule 5
    onWake(type);
  };
  if ((pageStorage || usesCookies) && "BroadcastChannel" in globalThis && "addEventListener" in globalThis) {
    state.channel = new BroadcastChannel(key);
    state.channel.onmessage = async ({ data }) => {
      Object.assign(state.accessTokens, data); // rule 6
      await settled(state);
      onChange();
    };
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
  settled(state).then(() => state.channel?.postMessage(state.accessTokens)); // rules 1 and 6
  notice(state, true);
  return record;
};

/**
 * Look for a change of the record, and return it.
 * @param {SessionState} state @param {boolean} [here] whether this tab made it
 */
export const notice = (state, here = false) => {
  const record = load(state);
  const { noticed: before, flight } = state;
  if (!here && flight && flight.epoch === record.epoch && flight.version < record.version && isUsable(state, record))
    flight.land(record); // rule 4; one of this page's ends by itself, as soon as its tokens are stored
  if (record.version === before.version && record.epoch === before.epoch) return record;
  state.noticed = record;
  if (!record.tokens || record.epoch !== before.epoch) endLogin(state, record, before, here);
  if (record.tokens) emit(state, "tokens", { here });
  return record;
};

/** @param {SessionState} state @param {StoredRecord} record @param {StoredRecord} before @param {boolean} here */
const endLogin = (state, record, before, here) => {
  const reason = record.tokens ? "other_login" : (record.over ?? "logged_out");
  for (const leave of state.waiting) leave(sessionOver(reason)); // rule 3
  state.isVisitor = !record.tokens; // rule 2
  if (before.tokens && !(record.tokens && (here || before === initialRecord(state)))) emit(state, "over", { reason, here });
};

/** @template {keyof Events} Type @param {SessionState} state @param {Type} type @param {Events[Type]} detail */
export const emit = (state, type, detail) => {
  trace(state, type, detail);
  for (const listener of [...state.listeners]) new Promise(() => listener(type, detail)); // rule 7
};

/**
 * Tell the developer what was decided. Nothing that is told holds a token.
 * @type {(state: SessionState, ...what: any[]) => void}
 */
export const trace = FULL ? ({ debug }, ...what) => debug?.(...what) : () => {};

/**
 * Add a listener to all events. Return a function that removes it.
 * @param {SessionState} state @param {(type: keyof Events, detail: any) => void} listener
 */
export const addListener = ({ listeners }, listener) => {
  const own = (/** @type {keyof Events} */ type, /** @type {any} */ detail) => listener(type, detail);
  listeners.add(own);
  return () => void listeners.delete(own);
};
