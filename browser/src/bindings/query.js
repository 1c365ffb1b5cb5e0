/**
 * TanStack Query, for React, Vue and others: what its client has to know of a session.
 *
 * 1. A request is sent again where that may help: when the server asks to try later, and when it says so. What fails for
 *    another reason of the session fails at once. Other errors are retried as Query does by itself.
 * 2. When the session is over nothing of its user stays, neither in the cache nor on the page. A visitor who has to log
 *    in has no data.
 * 3. After the next login the queries of the page are sent anew.
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
  const cache = client.getQueryCache();
  const { queries, ...others } = client.getDefaultOptions();
  client.setDefaultOptions({ ...others, queries: { retry, retryDelay, ...queries } });
  let isOver = session.status.state === "over";
  const ends = [
    session.on("over", ({ reason }) => {
      isOver = true;
      if (reason === "not_logged_in") return; // rule 2
      client.getMutationCache().clear();
      for (const query of cache.getAll()) {
        if (!query.isActive()) cache.remove(query);
        else if (query.state.data !== undefined) query.reset();
      }
    }),
    session.on("tokens", () => {
      if (isOver) client.refetchQueries({ type: "active" }); // rule 3
      isOver = false;
    }),
  ];
  return () => ends.forEach((end) => end());
};
