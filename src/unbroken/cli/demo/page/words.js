// What the page says: of a bar, of a lane, of what has happened.

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(1)} s`;
const many = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

const OUTCOMES = {
  open: "under way",
  served: "served",
  failed: "failed",
  offline: "not sent: offline",
  lost: "the answer was lost",
  refused: "refused",
};

export const words = {
  bar(bar) {
    const what = { exchange: "Exchange of tokens", thief: "Request of the thief", request: "Request" }[bar.kind];
    const waited = bar.parts.filter(({ look }) => look === "waited").reduce((sum, { begin, end }) => sum + ((end ?? begin) - begin), 0);
    const more = [
      bar.end && `after ${seconds(bar.end - bar.begin)}`,
      waited > 50 && `${seconds(waited)} of it waiting for new tokens`,
      bar.elsewhere && "in another tab",
    ];
    return [`${what}: ${OUTCOMES[bar.outcome]}`, ...more.filter(Boolean)].join(", ");
  },

  /** How one lane came through. */
  lane(name, { failed, exchanges, logouts }) {
    const lost = failed ? `${many(failed, "request")} failed` : "no request failed";
    return `${name}: ${many(exchanges, "exchange")}, ${lost}, ${logouts ? "logged out" : "still logged in"}.`;
  },

  event({ kind, verdict, seq, evidence, why }) {
    if (kind === "login.accepted") return "login";
    if (kind === "session.reuse_detected") {
      const [g, b, newest, branch] = evidence.match(/\d+/g) ?? [];
      return `reuse: token ${g}.${b} came back when ${newest}.${branch} was the newest. The session was ended.`;
    }
    if (kind === "session.ended") return `session ended: ${why}`;
    if (verdict === "retried") return `the same exchange once more: the same answer, generation ${seq}`;
    if (verdict === "branched") return `a spent token, forgiven: generation ${seq} was not in use yet`;
    return `exchange: generation ${seq}`;
  },
};
