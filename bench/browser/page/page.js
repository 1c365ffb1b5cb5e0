// What every page of the benchmark has: a contender that is logged in, a burst of its requests, and times.
import { contenders } from "/contenders.js";

const platform = { fetch: window.fetch.bind(window), now: Date.now };
// One clock for all tabs.
const now = () => performance.timeOrigin + performance.now();
const until = (time) => new Promise((done) => setTimeout(done, time - now()));
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

Object.assign(window, {
  /** Logs a contender in, so many seconds ago. Only the first tab stores the tokens. */
  async prepare(name, granted, first, ago) {
    Date.now = () => platform.now() - ago * 1000;
    window.send = await contenders[name](granted, first);
    Date.now = platform.now;
    // A browser has six connections to a server; they are open before the clock runs.
    await Promise.all([1, 2, 3, 4, 5, 6].map((number) => platform.fetch(`/free?${number}`)));
  },

  /** Sends so many requests at a given time; `outcome` is what came of them. */
  burst(count, begin, tab, hangs) {
    const one = async (number) => {
      // Browsers answer equal requests one after the other.
      const status = await send(`?tab=${tab}&number=${number}`).catch(() => 0);
      return status === 200;
    };
    window.outcome = (async () => {
      await until(begin);
      const began = now();
      const late = until(began + hangs * 1000).then(() => false);
      const good = await Promise.all(Array.from({ length: count }, (_, number) => Promise.race([one(number), late])));
      return { began, ended: now(), failures: good.filter((is) => !is).length };
    })();
  },

  /** Milliseconds of one refresh. */
  async refresh(granted) {
    const began = now();
    const body = new URLSearchParams({ grant_type: "refresh_token", refresh_token: granted.refresh_token });
    await (await platform.fetch("/token", { method: "POST", body })).json();
    return now() - began;
  },

  /** Microseconds that `session.fetch` takes more than `fetch` with a fixed header, where the answer is there at once. */
  async added(storage, granted, turns, calls) {
    const ready = new Response("ok");
    window.fetch = async () => ready;
    const { createSession } = await import("/unbroken.js");
    const session = createSession({ storage, refresh: { url: "/token", encoding: "form" } });
    session.importTokens(granted);
    const fixed = { headers: { Authorization: `Bearer ${granted.access_token}` } };
    const each = async (ask) => {
      const began = performance.now();
      for (let call = 0; call < calls; call++) await ask();
      return ((performance.now() - began) / calls) * 1000;
    };
    const differences = [];
    for (let turn = 0; turn <= turns; turn++) {
      const plain = await each(() => fetch("/api", fixed));
      differences.push((await each(() => session.fetch("/api"))) - plain);
    }
    return median(differences.slice(1));
  },
});
window.ready = true;
