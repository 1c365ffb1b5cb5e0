/**
 * TanStack Query, for React, Vue and others: what its client has to know of a session.
 *
 * 1. A request is sent again where that may help: when the server asks to try later, and when it says so. What fails for
 *    another reason of the session fails at once. Other errors are retried as Query does by itself.
 * 2. When the session is over nothing of its user stays, neither in the cache nor on the page, and what is under way for
 *    them is not kept. Queries of the page are sent anew: what needs no login goes on. A visitor who has to log in has no
 *    data.
 * 3. The same when another login takes its place without an end. A refresh counts `version` up by one, a login by more.
 */
const MAX_RETRIES = 3; // as Query's own
const MAX_PAUSE_MILLISECONDS = 30_000;

/** @param {number} count @param {any} error */
const retry = (count, error) => count < MAX_RETRIES && (error?.name !== "UnbrokenError" || error.code === "try_later"); // rule 1

/** @param {number} count @param {any} error */
const retryDelay = (count, error) =>
  Math.max((error?.retryAfter ?? 0) * 1000, Math.min(1000 * 2 ** count, MAX_PAUSE_MILLISECONDS));

/** @type {typeof import("./query_api.d.ts").connectQueries} */
export const connectQueries = (client, session) => {
  const { queries, ...others } = client.getDefaultOptions();
  client.setDefaultOptions({ ...others, queries: { retry, retryDelay, ...queries } });
  let { version: last, state } = session.status;
  let isOver = state === "over";
  const forget = () => {
    client.getMutationCache().clear();
    client.removeQueries({ type: "inactive" });
    client.resetQueries(); // those of the page
  };
  const ends = [
    session.on("over", ({ reason }) => {
      isOver = true;
      if (reason !== "not_logged_in") forget(); // rule 2
    }),
    session.on("tokens", () => {
      const { version } = session.status;
      if (isOver || version > last + 1) forget(); // rule 3
      isOver = false;
      last = version;
    }),
  ];
  return () => ends.forEach((end) => end());
};
