// The network between this page and its server: a little slow, the same for every client, and it can be cut.

const platform = globalThis.fetch.bind(globalThis);
// Milliseconds in one direction, in turn. Of several exchanges at once, some are overtaken, as on a telephone.
const WAYS = [130, 260, 170, 330, 110, 210];
const EXCHANGE_WAYS = [140, 620, 240, 520, 180, 580];

let cut = new AbortController();
let hanging; // exchanges that wait for the cut, by client

export const network = {
  offline: false,
  changed: () => {},

  /** Nothing gets through from now on, and what is under way is lost. */
  goOffline() {
    hanging = undefined;
    this.offline = true;
    cut.abort();
    this.changed();
  },

  /** The same, as soon as an exchange of each of so many clients is on its way: the worst moment there is. */
  goOfflineAtExchange(clients) {
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

/** Keeps an exchange on its way until the network is cut. */
const hang = (client) => {
  hanging.begun.add(client);
  if (hanging.begun.size >= hanging.clients) setTimeout(() => hanging && network.goOffline(), 150);
  return travel(1500);
};

/**
 * A fetch over this network. `tell({ isExchange, id })` is told of each request; what it returns, of the answer's status,
 * or 0 and whether the network was cut.
 */
export const fetchOver = (tell) => {
  const turns = { request: 0, exchange: 0 };
  return async (input, init = {}) => {
    const url = new URL(input.url ?? input, location.href);
    const isExchange = url.pathname.endsWith("/auth/refresh");
    const way = isExchange ? EXCHANGE_WAYS[turns.exchange++ % 6] : WAYS[turns.request++ % 6];
    const done = tell({ isExchange, id: new Headers(init.headers).get("Demo-Request") });
    try {
      if (isExchange && hanging) await hang(tell);
      await travel(way, init.signal);
      const answer = await platform(input, init);
      await travel(Math.min(way, 200), init.signal);
      done(answer.status);
      return answer;
    } catch (failure) {
      done(0, failure.message === "offline");
      throw failure;
    }
  };
};

/** What the page itself wants of the server, whatever the network of the clients is like. */
export const ask = (place, init) => platform(new URL(place, import.meta.url), init);
