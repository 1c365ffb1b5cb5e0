// The texts of the page: about a bar, about a client, about an event.

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)} s`;
const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

const OUTCOMES = {
  open: "under way",
  served: "served",
  failed: "failed",
  offline: "not sent: offline",
  lost: "the response was lost",
  refused: "refused",
};

export const words = {
  bar(bar) {
    const what = { refresh: "Refresh", thief: "Request of the thief", request: "Request" }[bar.kind];
    const waits = bar.parts.filter(({ look }) => look === "waited");
    const waited = waits.reduce((sum, { begin, end }) => sum + ((end ?? begin) - begin), 0);
    const more = [
      bar.end && `after ${seconds(bar.end - bar.begin)}`,
      waited > 50 && `${seconds(waited)} of it waiting for new tokens`,
      bar.elsewhere && "in another tab",
    ];
    return [`${what}: ${OUTCOMES[bar.outcome]}`, ...more.filter(Boolean)].join(", ");
  },

  /** How one client came through. */
  client(name, { failed, refreshes, logouts }) {
    const lost = failed ? `${count(failed, "request")} failed` : "no request failed";
    return `${name}: ${count(refreshes, "refresh", "refreshes")}, ${lost}, ${logouts ? "logged out" : "still logged in"}.`;
  },

  event({ kind, verdict, seq, why }) {
    if (kind === "login.accepted") return "login";
    if (kind === "session.reuse_detected") return "theft noticed: a refresh token came back that had been used before";
    if (kind === "session.ended") return `session revoked: ${why}`;
    if (verdict === "retried") return `refresh ${seq}, sent a second time: it gets the same tokens`;
    if (verdict === "branched") return `refresh ${seq}, again: its first tokens were not used yet`;
    return `refresh ${seq}`;
  },
};
