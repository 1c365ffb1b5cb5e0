// The network between this page and its server: slow, the same for both clients, and it can be cut.

const platform = globalThis.fetch.bind(globalThis);
// Milliseconds in one direction, in turn. Of several refreshes at once, later ones may arrive first, as on a phone.
const WAYS = [130, 260, 170, 330, 110, 210];
const REFRESH_WAYS = [140, 620, 240, 520, 180, 580];

let cut = new AbortController();
let hanging; // refreshes that wait for the cut, by client

export const network = {
  offline: false,
  changed: () => {},

  /** Nothing gets through from now on, and requests under way are lost. */
  goOffline() {
    hanging = undefined;
    this.offline = true;
    cut.abort();
    this.changed();
  },

  /** Go offline when a refresh of each of so many clients is on its way: the worst moment. */
  goOfflineDuringRefresh(clients) {
    hanging = { clients, begun: new Set() };
  },

  goOnline() {
    hanging = undefined;
    if (!this.offline) return;
    this.offline = false;
    cut = new AbortController();
    this.changed();
    globalThis.dispatchEvent(new Event("online")); // as browsers do
  },
};

const travel = (milliseconds, signal) =>
  new Promise((arrive, fail) => {
    const lost = () => fail(signal?.aborted ? signal.reason : new TypeError("offline"));
    if (cut.signal.aborted) return setTimeout(lost, milliseconds);
    const stop = AbortSignal.any([cut.signal, ...(signal ? [signal] : [])]);
    if (stop.aborted) return lost();
    stop.addEventListener("abort", lost);
    setTimeout(arrive, milliseconds);
  });

/** Keeps a refresh on its way until the network is cut. */
const hang = (client) => {
  hanging.begun.add(client);
  if (hanging.begun.size >= hanging.clients) setTimeout(() => hanging && network.goOffline(), 150);
  return travel(1500);
};

/**
 * A fetch over this network. `onRequest({ isRefresh, id })` is called for each request; the function that it returns is
 * called with the status of the response, or with 0 and whether the network was cut.
 */
export const fetchOver = (onRequest) => {
  const turns = { request: 0, refresh: 0 };
  return async (input, init = {}) => {
    const url = new URL(input.url ?? input, location.href);
    const isRefresh = url.pathname.endsWith("/auth/refresh");
    const way = isRefresh ? REFRESH_WAYS[turns.refresh++ % 6] : WAYS[turns.request++ % 6];
    const done = onRequest({ isRefresh, id: new Headers(init.headers).get("Demo-Request") });
    try {
      if (isRefresh && hanging) await hang(onRequest);
      await travel(way, init.signal);
      const response = await platform(input, init);
      await travel(Math.min(way, 200), init.signal);
      done(response.status);
      return response;
    } catch (failure) {
      done(0, failure.message === "offline");
      throw failure;
    }
  };
};

/** A request of the page itself, which the network of the clients does not affect. */
export const request = (path, init) => platform(new URL(path, import.meta.url), init);
