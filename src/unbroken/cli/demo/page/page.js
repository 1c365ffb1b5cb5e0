// The page: the buttons that cause trouble, and the texts that explain what happens.

import { thief } from "./clients.js";
import { all, begin, channel, clear, close, lanes, publish, show, sleep, state, tab, take, work } from "./lanes.js";
import { fetchOver, network, request } from "./network.js";
import { words } from "./words.js";

const SLOTS = 6;
const KEPT = 12_000; // milliseconds for which bars are kept
const INTRO = 3; // seconds until the first token expires, if no button is pressed
const RELOGIN = 1500; // milliseconds until a user who was logged out by a theft logs in again
const THEFT = 20_000; // milliseconds for which a thief goes on reading
const EVENTS = 8; // shown

const $ = (selector) => document.querySelector(selector);
let lastEvent = 0;

// ---- texts ----------------------------------------------------------------------------------------------------------

const say = (text) => {
  $("#summary").textContent = text;
};

const mark = (text, some = all) => {
  for (const lane of some) lane.marks = [...lane.marks, { at: Date.now(), text }].filter(({ at }) => Date.now() - at < KEPT);
};

/** Wait, at most so many seconds, until no refresh is under way and no request waits for one. */
const settled = async (seconds = 6) => {
  await sleep(800);
  const isInTrouble = (bar) => !bar.end && (bar.kind === "refresh" || bar.parts.length > 1);
  for (let turn = 0, quiet = 0; turn < seconds * 10 && quiet < 4; turn++) {
    const isBusy = all.some((lane) => [...lane.bars.values()].some(isInTrouble));
    quiet = isBusy ? 0 : quiet + 1;
    await sleep(100);
  }
};

/** Say what happened to each client since `before`. */
const sumUp = async (before, intro) => {
  await settled();
  const since = (lane) => Object.fromEntries(Object.entries(lane.counts).map(([name, count]) => [name, count - before[lane.name][name]]));
  const results = all.map((lane) => {
    if (lane.over && before[lane.name].isOver) return `${title(lane)}: logged out since an earlier action.`;
    return words.client(title(lane), since(lane));
  });
  const advice = all.some(({ over }) => over) ? " “Start again” logs in again." : "";
  say(`${intro} ${results.join(" ")}${advice}`);
};

const title = (lane) => ({ naive: "Naive client", unbroken: "unbroken" })[lane.name];
const snapshot = () => Object.fromEntries(all.map((lane) => [lane.name, { ...lane.counts, isOver: Boolean(lane.over) }]));

const showEvents = async () => {
  for (; ; await sleep(1000)) {
    if (!state.visitor.key || document.hidden) continue;
    const fresh = (await readEvents()).filter(({ number }) => number > lastEvent);
    for (const event of fresh) addEvent(event);
    lastEvent = Math.max(lastEvent, ...fresh.map(({ number }) => number));
  }
};

/** The events of the server; none while it cannot be reached. */
const readEvents = async () => {
  try {
    const { events = [] } = await (await request("events", { headers: key() })).json();
    return events;
  } catch {
    return [];
  }
};

const addEvent = (event) => {
  const lane = all.find(({ sids }) => sids?.has(event.sid));
  const item = document.createElement("li");
  const who = document.createElement("b");
  who.textContent = lane ? title(lane) : "Another device";
  if (event.kind === "session.reuse_detected") item.className = "alarm";
  item.append(who, ` ${words.event(event)}`);
  $("#events").prepend(item);
  while ($("#events").children.length > EVENTS) $("#events").lastChild.remove();
};

// ---- trouble --------------------------------------------------------------------------------------------------------

const key = () => ({ "Demo-Key": state.visitor.key });
const trouble = async (path) => {
  const { ok, status } = await request(path, { method: "POST", headers: key() });
  if (!ok) throw new Error(`status ${status}`, { cause: status });
};

const expire = async (text = "token expires") => {
  await trouble("expire");
  mark(text);
};

const actions = {
  async expire() {
    const before = snapshot();
    await expire();
    say("The access token has expired. Watch both clients.");
    await sumUp(before, "The access token expired.");
  },

  async lose() {
    const before = snapshot();
    await trouble("lose");
    await expire("token expires, response lost");
    say("The access token has expired, and the response to the next refresh gets lost.");
    await sumUp(before, "The response to a refresh was lost.");
  },

  async offline() {
    if (network.offline) return network.goOnline();
    const before = snapshot();
    network.goOfflineDuringRefresh(all.filter(({ over }) => !over).length);
    await expire();
    say("The connection breaks during a refresh. It is back in five seconds.");
    for (let turn = 0; turn < 25 && !network.offline; turn++) await sleep(100);
    if (!network.offline) network.goOffline();
    for (let turn = 0; turn < 35 && network.offline; turn++) await sleep(100);
    network.goOnline();
    await sumUp(before, "The connection broke during a refresh, and came back.");
  },

  async steal() {
    if (all.some(({ over }) => over)) await actions.again(); // a client that is logged out has no token to steal
    say("A thief has copied both refresh tokens, refreshes with them, and reads the user’s data.");
    mark("tokens stolen");
    const thefts = all.map((lane) => ({ lane, began: Date.now(), run: state.visitor.run, thief: thief(fetchOver(() => () => {}), lane.client.refreshToken) }));
    await Promise.all(thefts.map(({ lane, thief }) => thiefActs(lane, () => thief.refresh())));
    await Promise.all(thefts.map(({ lane, thief }) => thiefActs(lane, () => thief.read())));
    say("Now both clients refresh with their own copies of the tokens.");
    for (const { lane } of thefts) await trouble(`expire?sid=${lane.client.sid}`);
    mark("clients refresh");
    const outcomes = await Promise.all(thefts.map(follow));
    say(outcomes.join(" "));
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

/** Draw one request of the thief, and return whether the server served it; undefined: there was no response. */
const thiefActs = async (lane, act) => {
  const bar = begin("thief", 0);
  publish(lane, bar);
  const isServed = await act().catch(() => undefined);
  const outcome = isServed ? "served" : isServed === false ? "refused" : "lost";
  close(bar, outcome, outcome === "refused" ? "failed" : outcome);
  publish(lane, bar);
  return isServed;
};

/** The thief goes on reading, and the user logs in again when logged out. Return what became of both, as a text. */
const follow = async (theft) => {
  const { lane, began } = theft;
  const loggedIn = logInAgain(lane);
  let out = 0;
  for (let reads = 0; reads < 4 || !lane.hasLoggedInAgain; reads++) {
    if ((await thiefActs(lane, () => theft.thief.read())) === false) {
      out = Math.round((Date.now() - began) / 1000);
      break;
    }
    await sleep(500);
  }
  await loggedIn;
  lane.theft = out ? `thief out after ${out} s` : "the thief is still in";
  show(lane);
  if (!out) goOn(theft);
  if (out) return `${title(lane)}: the server saw two parties use one token, and revoked the session. The thief is out after ${out} s; the user has logged in again.`;
  return `${title(lane)}: the user was logged out and has logged in again. The theft was not noticed: the thief is still in.`;
};

/** Log the user in again once the theft has logged the client out. */
const logInAgain = async (lane) => {
  lane.hasLoggedInAgain = false;
  for (let turn = 0; turn < 60 && !lane.over; turn++) await sleep(100);
  if (lane.over) {
    await sleep(RELOGIN);
    const [username, password] = state.visitor.key.split(/\.(.*)/s);
    await lane.client.login({ username, password });
    lane.sids.add(lane.client.sid);
    mark("logged in again", [lane]);
  }
  lane.hasLoggedInAgain = true;
};

/** A thief that is still in goes on reading for a while. */
const goOn = async ({ lane, began, run, thief }) => {
  while (Date.now() - began < THEFT && state.visitor.run === run && !busy.includes("again")) {
    if (!state.paused && (await thiefActs(lane, () => thief.read())) === false) return;
    await sleep(700);
  }
};

// ---- buttons --------------------------------------------------------------------------------------------------------

let busy = "";
const act = async (name) => {
  if (busy && name !== "pause" && !(name === "offline" && network.offline)) return;
  if (name === "pause" || network.offline) return actions[name]();
  setBusy(name);
  try {
    await actions[name]();
  } catch (failure) {
    network.goOnline(); // or the next refresh would be cut too
    say(
      failure.cause === 404
        ? "The demo’s server was restarted, and does not know this page: start again."
        : `The demo’s server does not respond (${failure.message}). Is it still running?`,
    );
  }
  setBusy("");
};

const setBusy = (name) => {
  busy = name;
  for (const button of document.querySelectorAll("[data-action]")) {
    const isFree = !busy || button.dataset.action === "pause" || (button.dataset.action === "offline" && busy === "offline");
    if (isFree) button.removeAttribute("aria-disabled");
    else button.setAttribute("aria-disabled", "true");
    button.title = isFree ? "" : "Available again when the current action has ended";
  }
};

network.changed = () => {
  document.body.classList.toggle("offline", network.offline);
  $("[data-action=offline]").textContent = network.offline ? "Go online" : "Go offline";
  mark(network.offline ? "offline" : "online again");
};

// ---- beginning ------------------------------------------------------------------------------------------------------

const start = async () => {
  const response = await request("start", { method: "POST" });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const { run, ...who } = await response.json();
  state.visitor = { key: `${who.username}.${who.password}`, run: `${run} ${who.username}` };
  for (const lane of all) await lane.client.login(who);
  localStorage.setItem("demo visitor", JSON.stringify({ ...state.visitor, server: run }));
  begun();
};

const begun = () => {
  lastEvent = 0;
  $("#events").replaceChildren();
  clear();
  for (const lane of all) lane.sids = new Set([lane.sid]);
};

/** Join the sessions of another tab, if there is one. */
const join = async () => {
  const stored = JSON.parse(localStorage.getItem("demo visitor"));
  const { run } = await (await request("run")).json();
  if (stored?.server !== run || !(await hasOtherTab())) return false;
  state.visitor = stored;
  begun();
  return true;
};

const hasOtherTab = () => {
  channel.postMessage({ tell: "hello", tab });
  return Promise.race([new Promise((found) => (heardBack = () => found(true))), sleep(300).then(() => false)]);
};
let heardBack = () => {};

const tabs = new Set([tab]);
channel.onmessage = ({ data }) => {
  const isNew = !tabs.has(data.tab);
  tabs.add(data.tab);
  if (data.tell === "hello") {
    channel.postMessage({ tell: "here", tab });
    if (isNew && !busy) say("Another tab has joined: both tabs share the two sessions.");
  }
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
  showEvents();
  document.body.dataset.ready = "yes";
  if (hasJoined) return say("This tab has joined the other one: both share the two sessions.");
  say("Both clients are logged in, and send requests.");
  if (location.hash === "#still") return;
  for (let left = INTRO; left > 0 && !busy; left--) {
    say(`Both clients are logged in, and send requests. In ${left} s the access token expires: watch both.`);
    await sleep(1000);
  }
  if (!busy) await act("expire");
};

main().catch((failure) => say(`The demo could not begin: ${failure.message}`));
