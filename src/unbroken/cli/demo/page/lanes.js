// The two lanes: the requests of each client as bars, in this tab and in others, and their counts.

import { naiveClient, unbrokenClient } from "./clients.js";
import { fetchOver, network } from "./network.js";
import { waterfall } from "./waterfall.js";
import { words } from "./words.js";

const PAUSES = [230, 380, 170, 310, 420, 260]; // milliseconds between two requests of a slot

const calm = matchMedia("(prefers-reduced-motion: reduce)");
export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
/** The id of this tab; a reload keeps it. */
export const tab = (sessionStorage["demo tab"] ??= crypto.randomUUID());
export const channel = new BroadcastChannel("unbroken demo page");
/** `others`: whether other tabs send requests too. */
export const state = { visitor: { key: "" }, paused: false, others: false };

const zero = () => ({ served: 0, failed: 0, refreshes: 0, logouts: 0 });

export const lanes = Object.fromEntries(
  [["naive", naiveClient], ["unbroken", unbrokenClient]].map(([name, make]) => {
    const lane = { name, root: document.getElementById(name), bars: new Map(), marks: [], counts: zero(), over: null, theft: "" };
    lane.client = make(
      fetchOver((request) => onRequest(lane, request)),
      ({ reason }) => end(lane, reason),
    );
    lane.draw = waterfall(lane.root.querySelector("svg"), { words, still: () => calm.matches });
    return [name, lane];
  }),
);
export const all = Object.values(lanes);

/** Show the counts of a lane, and whether its user is logged in. `theft`: what became of a thief. */
export const show = (lane) => {
  for (const name in lane.counts) lane.root.querySelector(`[data-count=${name}]`).textContent = lane.counts[name];
  lane.root.dataset.state = lane.over ? "over" : lane.theft.includes("still in") ? "warning" : "good";
  const state = lane.over ? "Logged out" : "Logged in";
  lane.root.querySelector(".state").textContent = lane.theft ? `${state} · ${lane.theft}` : state;
  document.querySelector("[data-action=again]").classList.toggle("first", all.some(({ over }) => over));
};

/** Add or update a bar, of this tab or another. */
export const take = (lane, bar) => {
  const before = lane.bars.get(bar.id);
  lane.bars.set(bar.id, bar);
  if (bar.outcome === "open" || (before && before !== bar && before.outcome !== "open")) return;
  if (bar.kind === "refresh" && bar.outcome !== "offline") lane.counts.refreshes++;
  if (bar.kind === "request" && bar.outcome in lane.counts) lane.counts[bar.outcome]++;
  show(lane);
};

export const publish = (lane, bar) => {
  take(lane, bar);
  channel.postMessage({ tell: "bar", tab, lane: lane.name, bar });
};

export const begin = (kind, row) => {
  const now = Date.now();
  return { id: crypto.randomUUID(), kind, row, begin: now, outcome: "open", crowded: state.others, parts: [{ begin: now, look: "sent" }] };
};

export const close = (bar, outcome, look = outcome) => {
  const [last] = bar.parts.slice(-1);
  bar.end = last.end = Date.now();
  bar.outcome = outcome;
  last.look = look;
  if (look !== "failed") return;
  const [first, ...rest] = bar.parts; // what followed the 401 is one failure
  if (rest.length) bar.parts = [first, { begin: rest[0].begin, end: bar.end, look }];
};

/** Draw one request that the network reports. */
const onRequest = (lane, { isRefresh, id }) => {
  if (isRefresh) {
    const busy = [...lane.bars.values()].filter((bar) => bar.kind === "refresh" && !bar.end).map(({ row }) => row);
    const bar = begin("refresh", [0, 1, 2, 3, 4, 5].find((row) => !busy.includes(row)) ?? 0);
    publish(lane, bar);
    return (status, isOffline) => {
      close(bar, status === 200 ? "served" : status ? "refused" : isOffline ? "offline" : "lost");
      publish(lane, bar);
    };
  }
  const bar = lane.bars.get(id);
  if (!bar) return () => {};
  step(bar, "sent");
  return (status) => {
    if (status === 401) step(bar, "waited");
  };
};

const step = (bar, look) => {
  const [last] = bar.parts.slice(-1);
  const now = Date.now();
  if (last.look === look || bar.end) return;
  if (now - last.begin < 15) last.look = look;
  else {
    last.end = now;
    if (last.look === "sent") last.look = "refused"; // a 401
    bar.parts.push({ begin: now, look });
  }
};

const end = (lane, reason) => {
  if (lane.over) return;
  if (reason === "other_login") return;
  lane.over = { at: Date.now(), reason };
  lane.counts.logouts++;
  show(lane);
};

/** Send one request, and draw its outcome for the application. */
const request = async (lane, row) => {
  const bar = begin("request", row);
  lane.bars.set(bar.id, bar);
  publish(lane, bar);
  try {
    const response = await lane.client.send(`api/${row}`, { headers: { "Demo-Request": bar.id } });
    close(bar, response.ok ? "served" : "failed");
  } catch (failure) {
    const isOffline = failure.message === "offline" || (failure.code === "try_later" && network.offline);
    close(bar, isOffline ? "offline" : "failed");
  }
  publish(lane, bar);
};

export const work = async (lane, row) => {
  await sleep(row * 90);
  for (let turn = row; ; turn++) {
    if (lane.client.isOver && !lane.over) end(lane, "elsewhere");
    if (!lane.client.isOver && lane.over) revive(lane); // the user has logged in again
    if (!state.paused && !lane.over && state.visitor.key) await request(lane, row);
    await sleep(PAUSES[turn % PAUSES.length]);
  }
};

/** The user has logged in again: the lane goes on with its counts. */
const revive = (lane) => {
  Object.assign(lane, { over: null, sid: lane.client.sid });
  show(lane);
};

/** Start from the beginning, with the sessions that the clients have now. */
export const clear = () => {
  for (const lane of all) {
    Object.assign(lane, { over: null, counts: zero(), marks: [], sid: lane.client.sid, theft: "" });
    lane.bars.clear();
    show(lane);
  }
};
