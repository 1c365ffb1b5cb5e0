// The lanes: what each client sends, as bars, in this tab and in others, and what is counted of it.

import { naiveClient, unbrokenClient } from "./clients.js";
import { fetchOver, network } from "./network.js";
import { waterfall } from "./waterfall.js";
import { words } from "./words.js";

const PAUSES = [230, 380, 170, 310, 420, 260]; // milliseconds between two requests of a slot

const calm = matchMedia("(prefers-reduced-motion: reduce)");
export const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
export const tab = crypto.randomUUID();
export const channel = new BroadcastChannel("unbroken demo page");
/** `others`: whether other tabs are at work too. */
export const state = { visitor: { key: "" }, paused: false, others: false };

const zero = () => ({ served: 0, failed: 0, exchanges: 0, logouts: 0 });

export const lanes = Object.fromEntries(
  [["naive", naiveClient], ["unbroken", unbrokenClient]].map(([name, make]) => {
    const lane = { name, root: document.getElementById(name), bars: new Map(), marks: [], counts: zero(), over: null };
    lane.client = make(
      fetchOver((request) => wire(lane, request)),
      ({ reason }) => end(lane, reason),
    );
    lane.draw = waterfall(lane.root.querySelector("svg"), { words, still: () => calm.matches });
    return [name, lane];
  }),
);
export const all = Object.values(lanes);

const show = (lane) => {
  for (const name in lane.counts) lane.root.querySelector(`[data-count=${name}]`).textContent = lane.counts[name];
  lane.root.dataset.state = lane.over ? "over" : "good";
  lane.root.querySelector(".state").textContent = lane.over ? `Logged out${lane.over.reason === "reuse" ? ": reuse" : ""}` : "Logged in";
};

/** Takes a bar, of this tab or another, as it is now. */
export const take = (lane, bar) => {
  const before = lane.bars.get(bar.id);
  lane.bars.set(bar.id, bar);
  if (bar.outcome === "open" || (before && before !== bar && before.outcome !== "open")) return;
  if (bar.kind === "exchange" && bar.outcome !== "offline") lane.counts.exchanges++;
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
  const [first, ...rest] = bar.parts; // after the first answer all was in vain
  if (rest.length) bar.parts = [first, { begin: rest[0].begin, end: bar.end, look }];
};

/** What the network tells of one request on the wire. */
const wire = (lane, { isExchange, id }) => {
  if (isExchange) {
    const busy = [...lane.bars.values()].filter((bar) => bar.kind === "exchange" && !bar.end).map(({ row }) => row);
    const bar = begin("exchange", [0, 1, 2, 3, 4, 5].find((row) => !busy.includes(row)) ?? 0);
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
    if (last.look === "sent") last.look = "refused"; // it came back with a 401
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

/** One request, and what came of it for the application. */
const request = async (lane, row) => {
  const bar = begin("request", row);
  lane.bars.set(bar.id, bar);
  publish(lane, bar);
  try {
    const answer = await lane.client.send(`api/${row}`, { headers: { "Demo-Request": bar.id } });
    close(bar, answer.ok ? "served" : "failed");
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
    if (!state.paused && !lane.over && state.visitor.key) await request(lane, row);
    await sleep(PAUSES[turn % PAUSES.length]);
  }
};

/** Everything from the beginning, for the sessions that the clients have now. */
export const clear = () => {
  for (const lane of all) {
    Object.assign(lane, { over: null, counts: zero(), marks: [], sid: lane.client.sid });
    lane.bars.clear();
    show(lane);
  }
};
