// "Your devices": the endpoints /auth/sessions list the sessions of the user, and revoke them.

import { unbrokenClient } from "./clients.js";

const $ = (selector) => document.querySelector(selector);
const client = unbrokenClient(globalThis.fetch, ({ reason }) => leave(reason));

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

const ago = (at) => {
  const passed = Date.now() / 1000 - at;
  const [unit, length] = UNITS.find(([, seconds]) => passed >= seconds) ?? [];
  return unit ? relative.format(-Math.floor(passed / length), unit) : "just now";
};

const made = (name, text = "", about = {}) => Object.assign(document.createElement(name), { textContent: text }, about);
const say = (text) => ($("#summary").textContent = text);

const leave = (reason) => {
  $("#devices").replaceChildren();
  $("#others").hidden = true;
  say(reason === "not_logged_in" ? "You are not logged in. The page “Waterfall” logs you in." : "You are logged out. The page “Waterfall” logs you in again.");
};

const shown = (one) => {
  const item = made("li");
  const about = made("div");
  const name = made("h2", one.label || one.device || "A device");
  if (one.current) name.append(" ", made("span", "this session", { className: "here" }));
  const used = made("time", ago(one.used_at), { dateTime: new Date(one.used_at * 1000).toISOString() });
  used.title = new Date(one.used_at * 1000).toLocaleString();
  const facts = made("p", "", { className: "facts" });
  facts.append([one.device, one.ip].filter(Boolean).join(" · "), " · last used ", used);
  about.append(name, facts);
  item.append(about);
  if (!one.current) {
    const button = made("button", "Log out", { type: "button", onclick: () => logOut(one) });
    button.setAttribute("aria-label", `Log out ${name.textContent}`);
    item.append(button);
  }
  return item;
};

const list = async () => {
  const response = await client.send("auth/sessions");
  if (!response.ok) throw new Error(`status ${response.status}`);
  const { sessions } = await response.json();
  sessions.sort((one, other) => other.current - one.current || other.used_at - one.used_at);
  $("#devices").replaceChildren(...sessions.map(shown));
  $("#others").hidden = sessions.length < 2;
  return sessions.length;
};

const many = (count) => `${count} ${count === 1 ? "session" : "sessions"}`;

/** Do it, list the sessions again, say so, and move the focus to the next button. */
const change = async (act, said) => {
  try {
    const about = await act();
    const left = await list();
    say(`${said(about)} You are logged in with ${many(left)}.`);
    ($("#devices button") ?? $("nav a")).focus();
  } catch (failure) {
    if (failure.code === "session_over") leave(failure.reason);
    else say(`The server does not respond (${failure.message}). Try again.`);
  }
};

const logOut = (one) =>
  change(
    () => client.send(`auth/sessions/${one.sid}`, { method: "DELETE" }),
    () => `Logged out: ${one.label || one.device}.`,
  );

$("#others").addEventListener("click", () =>
  change(
    async () => (await client.send("auth/sessions/revoke-others", { method: "POST" })).json(),
    ({ revoked }) => `Logged out ${many(revoked)}.`,
  ),
);

if (client.isOver) leave("not_logged_in");
else
  list()
    .then((count) => say(`You are logged in with ${many(count)}.`))
    .catch((failure) => (failure.code === "session_over" ? leave(failure.reason) : say(`The server does not respond (${failure.message}).`)));
