// What every test page has: a session, two clients of it, and ways to look at what came of a request.
import { createSession } from "/unbroken.js";
import axios from "/axios.js";

const platform = { fetch: window.fetch.bind(window), now: Date.now };
let ahead = 0;
Date.now = () => platform.now() + ahead * 1000;

const plainDetail = ({ error, ...detail }) => (error ? { ...detail, code: error.code } : detail);

const failed = (error) => ({
  error: error.code ?? error.name,
  name: error.name,
  message: error.message,
  reason: error.reason ?? null,
  field: error.field || null,
  retryAfter: error.retryAfter ?? null,
  cancelled: axios.isCancel(error),
  at: performance.now(),
});

const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};

const came = (status, text, response) => ({
  status,
  text,
  json: parsed(text),
  notReplayed: response.whyNotReplayed?.code ?? null,
  refreshed: response.whyNotReplayed?.refreshed ?? null,
  at: performance.now(),
});

// A body by name, so that tests can ask for what no JSON can carry. `make` runs for each request.
const bodies = {
  text: () => "grüße",
  blob: () => new Blob(["blob ", "body"], { type: "text/plain" }),
  buffer: () => new Uint8Array([0, 1, 2, 255]).buffer,
  view: () => new Uint8Array([9, 8, 7]),
  params: () => new URLSearchParams({ a: "1 2", b: "&" }),
  form: () => {
    const form = new FormData();
    form.set("field", "value");
    form.set("file", new File(["file body"], "a.txt", { type: "text/plain" }));
    return form;
  },
  upload: () => {
    const form = new FormData();
    form.set("file", new File(["file body ".repeat(10_000)], "a.txt", { type: "text/plain" }));
    return form;
  },
  stream: () => new Blob(["streamed body"]).stream(),
  // Made piece by piece, as they are sent.
  pieces: () => {
    let made = 0;
    const pull = (controller) => {
      controller.enqueue(new Uint8Array(65536).fill(made));
      if (++made === 16) controller.close();
    };
    return new ReadableStream({ pull });
  },
};

const byFetch = async (session, url, { body, kind, skip, ...init }) => {
  if (kind) body = bodies[kind]();
  if (skip) init.unbroken = false;
  if (body instanceof ReadableStream) init.duplex = "half";
  const response = await session.fetch(url, { ...init, body });
  return came(response.status, await response.text(), response);
};

const byRequest = async (session, url, { body, kind, ...init }) => {
  if (kind) body = bodies[kind]();
  if (body instanceof ReadableStream) init.duplex = "half";
  const response = await session.fetch(new Request(url, { ...init, body }));
  return came(response.status, await response.text(), response);
};

const byAxios =
  (instance) =>
  async (session, url, { body, kind, skip, ...config }) => {
    if (kind) body = bodies[kind]();
    if (skip) config.unbroken = false;
    const text = ({ status, data, ...response }) =>
      came(status, typeof data === "string" ? data : JSON.stringify(data), response);
    try {
      return text(await instance.request({ url, data: body, ...config }));
    } catch (error) {
      if (!error.response || error.name === "UnbrokenError") throw error;
      return text({ ...error.response, whyNotReplayed: error.response.whyNotReplayed });
    }
  };

Object.assign(window, {
  axios,
  createSession,
  platform,
  heard: [],
  begun: [],
  clients: { fetch: byFetch, request: byRequest },

  /** Makes the session, or another one of the same name. */
  start(options) {
    const session = createSession(options);
    for (const type of ["tokens", "refresh", "over"])
      session.on(type, (detail) => heard.push([type, plainDetail(detail)]));
    window.session = session;
    window.instance = axios.create({ timeout: 0 });
    window.detach = session.attach(instance);
    clients.axios = byAxios(instance);
  },

  ask: (client, url, init = {}) => clients[client](session, url, init).catch(failed),

  /** Begins a request; its number is for `outcome`. */
  begin(client, url, init = {}) {
    const leave = new AbortController();
    const number = begun.push({ leave, done: false }) - 1;
    // Browsers response equal requests one after the other.
    const own = `${url}${url.includes("?") ? "&" : "?"}number=${number}`;
    begun[number].result = ask(client, own, { ...init, signal: leave.signal }).finally(
      () => (begun[number].done = true),
    );
    return number;
  },

  together: (client, count, url, init) =>
    Promise.all(Array.from({ length: count }, () => begun[begin(client, url, init)].result)),

  attempt: async (work) => {
    try {
      return { value: (await work()) ?? null };
    } catch (error) {
      return failed(error);
    }
  },

  pass(seconds) {
    ahead += seconds;
  },

  stored(storage = localStorage) {
    const texts = Object.keys(storage).map((key) => storage.getItem(key));
    return texts.map(parsed).find((value) => value?.version) ?? null;
  },
});
window.ready = true;
