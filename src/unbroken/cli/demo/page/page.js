// The page: the buttons that make trouble, and what is said about it.

import { thief } from "./clients.js";
import { all, begin, channel, clear, close, lanes, publish, sleep, state, tab, take, work } from "./lanes.js";
import { ask, fetchOver, network } from "./network.js";
import { words } from "./words.js";

const SLOTS = 6;
const KEPT = 12_000; // milliseconds for which bars are kept
const INTRO = 3; // seconds until the first token dies, for who only looks

const $ = (selector) => document.querySelector(selector);
let toldUpTo = 0;

// ---- saying ---------------------------------------------------------------------------------------------------------

const say = (text) => {
  $("#summary").textContent = text;
};

const mark = (text, some = all) => {
  for (const lane of some) lane.marks = [...lane.marks, { at: Date.now(), text }].filter(({ at }) => Date.now() - at < KEPT);
};

/** Waits, at most so many seconds, until nothing is exchanged any more and nobody waits for it. */
const settled = async (seconds = 6) => {
  await sleep(800);
  const isInTrouble = (bar) => !bar.end && (bar.kind === "exchange" || bar.parts.length > 1);
  for (let turn = 0, quiet = 0; turn < seconds * 10 && quiet < 4; turn++) {
    const isBusy = all.some((lane) => [...lane.bars.values()].some(isInTrouble));
    quiet = isBusy ? 0 : quiet + 1;
    await sleep(100);
  }
};

/** Sums up what the trouble did to either lane. */
const sumUp = async (before, intro) => {
  await settled();
  const since = (lane) => Object.fromEntries(Object.entries(lane.counts).map(([name, count]) => [name, count - before[lane.name][name]]));
  const [naive, ours] = [lanes.naive, lanes.unbroken].map((lane) => {
    if (lane.over && before[lane.name].logouts) return `${title(lane)}: was logged out before.`;
    return words.lane(title(lane), since(lane));
  });
  say(`${intro} ${naive} ${ours}`);
};

const title = (lane) => ({ naive: "Naive client", unbroken: "unbroken" })[lane.name];
const snapshot = () => Object.fromEntries(all.map((lane) => [lane.name, { ...lane.counts }]));

const listen = async () => {
  for (; ; await sleep(1000)) {
    if (!state.visitor.key || document.hidden) continue;
    const fresh = (await heard()).filter(({ number }) => number > toldUpTo);
    for (const event of fresh) tell(event);
    toldUpTo = Math.max(toldUpTo, ...fresh.map(({ number }) => number));
  }
};

/** What the server has to tell; nothing while it cannot be reached. */
const heard = async () => {
  try {
    const { events = [] } = await (await ask("events", { headers: key() })).json();
    return events;
  } catch {
    return [];
  }
};

const tell = (event) => {
  const lane = all.find(({ sid }) => sid === event.sid);
  const item = document.createElement("li");
  const who = document.createElement("b");
  who.textContent = lane ? title(lane) : "Another device";
  if (event.kind === "session.reuse_detected") item.className = "alarm";
  item.append(who, ` ${words.event(event)}`);
  $("#events").prepend(item);
  while ($("#events").children.length > 8) $("#events").lastChild.remove();
};

// ---- trouble --------------------------------------------------------------------------------------------------------

const key = () => ({ "Demo-Key": state.visitor.key });
const trouble = async (place) => {
  const { ok, status } = await ask(place, { method: "POST", headers: key() });
  if (!ok) throw new Error(`status ${status}`, { cause: status });
};

const expire = async (text = "the token dies") => {
  await trouble("expire");
  mark(text);
};

const actions = {
  async expire() {
    const before = snapshot();
    await expire();
    say("The access token has died. Watch both lanes.");
    await sumUp(before, "The access token died.");
  },

  async lose() {
    const before = snapshot();
    await trouble("lose");
    await expire("token dies, answer lost");
    say("The access token has died, and the answer to the next exchange gets lost on its way.");
    await sumUp(before, "The answer to an exchange was lost.");
  },

  async offline() {
    if (network.offline) return network.goOnline();
    const before = snapshot();
    network.goOfflineAtExchange(all.filter(({ over }) => !over).length);
    await expire();
    say("The connection breaks in the middle of an exchange. It is back in five seconds.");
    for (let turn = 0; turn < 25 && !network.offline; turn++) await sleep(100);
    if (!network.offline) network.goOffline();
    for (let turn = 0; turn < 35 && network.offline; turn++) await sleep(100);
    network.goOnline();
    await sumUp(before, "The connection broke during an exchange, and came back.");
  },

  async steal() {
    const lane = lanes.unbroken;
    const stolen = lane.client.refreshToken;
    if (!stolen) return say("There is no token to steal: the session is over. Start again first.");
    say("A thief has copied the refresh token of unbroken’s page, exchanges it, and reads with it.");
    mark("token stolen", [lane]);
    const he = thief(fetchOver(() => () => {}), stolen);
    await steal(lane, () => he.refresh());
    await steal(lane, async () => (await he.look({})).ok);
    await sleep(600);
    say("Now the page renews with its own copy. Two holders of one token: the server sees it.");
    await trouble(`expire?sid=${lane.client.sid}`);
    mark("the page renews", [lane]);
    for (let turn = 0; turn < 30 && !lane.over; turn++) await sleep(100);
    await steal(lane, async () => (await he.look({})).ok);
    const isFound = !(await steal(lane, () => he.refresh()));
    say(
      isFound && lane.over
        ? "The theft was found out: the refresh token was used twice, so the server ended the session. The thief is out, and the user logs in again."
        : "The theft was not found out.",
    );
  },

  async again() {
    await start();
    channel.postMessage({ tell: "start", tab });
    say("Started again: both clients are logged in.");
  },

  pause() {
    state.paused = !state.paused;
    $("[data-action=pause]").textContent = state.paused ? "Go on" : "Pause";
    say(state.paused ? "Paused: no requests are sent." : "Going on.");
  },
};

const steal = async (lane, act) => {
  const bar = begin("thief", 0);
  publish(lane, bar);
  const isGood = await act().catch(() => false);
  close(bar, isGood ? "served" : "refused", isGood ? "served" : "failed");
  publish(lane, bar);
  await sleep(150);
  return isGood;
};

let busy = "";
const act = async (name) => {
  if (busy && name !== "pause" && !(name === "offline" && network.offline)) return;
  if (name === "pause" || network.offline) return actions[name]();
  busy = name;
  for (const button of document.querySelectorAll("[data-action]")) button.setAttribute("aria-disabled", `${!free(button)}`);
  try {
    await actions[name]();
  } catch (failure) {
    network.goOnline(); // or the next exchange would be cut all the same
    say(
      failure.cause === 404
        ? "The demo’s server has been started anew, and does not know this page: start again."
        : `The demo’s server does not answer (${failure.message}). Is it still running?`,
    );
  }
  busy = "";
  for (const button of document.querySelectorAll("[data-action]")) button.removeAttribute("aria-disabled");
};
const free = ({ dataset }) => dataset.action === "pause" || (dataset.action === "offline" && busy === "offline");

network.changed = () => {
  document.body.classList.toggle("offline", network.offline);
  $("[data-action=offline]").textContent = network.offline ? "Go online" : "Go offline";
  mark(network.offline ? "offline" : "online again");
};

// ---- beginning ------------------------------------------------------------------------------------------------------

const start = async () => {
  const answer = await ask("start", { method: "POST" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const { run, ...who } = await answer.json();
  state.visitor = { key: `${who.username}.${who.password}`, run };
  for (const lane of all) await lane.client.login(who);
  localStorage.setItem("demo visitor", JSON.stringify(state.visitor));
  begun();
};

const begun = () => {
  toldUpTo = 0;
  $("#events").replaceChildren();
  clear();
};

/** Joins what another tab has begun, if there is one. */
const join = async () => {
  const stored = JSON.parse(localStorage.getItem("demo visitor"));
  const { run } = await (await ask("run")).json();
  if (stored?.run !== run || !(await isAnybodyThere())) return false;
  state.visitor = stored;
  begun();
  return true;
};

const isAnybodyThere = () => {
  channel.postMessage({ tell: "hello", tab });
  return Promise.race([new Promise((found) => (heardBack = () => found(true))), sleep(300).then(() => false)]);
};
let heardBack = () => {};

channel.onmessage = ({ data }) => {
  if (data.tell === "hello") channel.postMessage({ tell: "here", tab });
  if (data.tell === "here") heardBack();
  if (data.tell === "start") return location.reload();
  state.others = true;
  if (data.tell === "bar") take(lanes[data.lane], { ...data.bar, elsewhere: true });
};

const frame = () => {
  const now = Date.now();
  for (const lane of all) {
    for (const [id, bar] of lane.bars) if (bar.end && now - bar.end > KEPT) lane.bars.delete(id);
    if (!state.paused) lane.draw(lane, now);
  }
  requestAnimationFrame(frame);
};

for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => act(button.dataset.action));

const main = async () => {
  const hasJoined = await join();
  if (!hasJoined) await start();
  for (const lane of all) for (let row = 0; row < SLOTS; row++) work(lane, row);
  requestAnimationFrame(frame);
  listen();
  document.body.dataset.ready = "yes";
  if (hasJoined) return say("This tab has joined the other one: both share the two sessions.");
  say("Both clients are logged in and at work.");
  if (location.hash === "#still") return;
  for (let left = INTRO; left > 0 && !busy; left--) {
    say(`Both clients are at work. In ${left} s the access token dies: watch both lanes.`);
    await sleep(1000);
  }
  if (!busy) await act("expire");
};

main().catch((failure) => say(`The demo could not begin: ${failure.message}`));
