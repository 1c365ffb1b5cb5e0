/**
 * Axios: the session works as an adapter, below the interceptors and transforms of the instance.
 *
 * 1. Interceptors and transforms run once, however often the request is sent.
 * 2. The config that the caller gets back is the caller's own, so that the request can be sent again with it.
 * 3. Axios has an error of its own for a request that was aborted, and the caller gets that one.
 * 4. A header of another name than `Authorization` needs control of redirects, which only axios's fetch adapter has.
 *    An adapter that is a function of the caller's stays.
 * 5. A request with a token goes to the URL that was judged, and not to a relative one, which `<base>` may have changed.
 * 6. A version that is too old is told when the session is attached: a request that goes nowhere shows what it can.
 * 7. Handlers of axios's errors find in ours what they look for: `config`, and `response` with `status` and `data`. A
 *    session that is over is a 401, also where no server was asked.
 * 8. A stream is read by one branch of it, and the caller gets the other.
 *
 * @import { Axios, CoreSession } from "./api.d.ts"
 *
 * @typedef {Pick<CoreSession, "send" | "UnbrokenError">} Adapted
 * @typedef {any} Config of an axios request; axios is no dependency, so its types are not at hand
 */
/**
 * Give the requests of an axios instance the session's token. Return a function that detaches it. Throws misconfigured.
 * @param {Adapted} session @param {Axios} axios
 */
export const attach = (session, axios) => {
  const bare = axios?.create?.(); // rule 1: without interceptors, and without the defaults, which a config has already
  for (const name in bare?.defaults) delete bare.defaults[name];
  if (!hasHeaders(bare)) throw new session.UnbrokenError("misconfigured", "this is no instance of axios 1.2 or newer"); // rule 6
  const id = axios.interceptors.request.use(
    (/** @type {Config} */ config) => ({ ...config, adapter: sessionAdapter(session, bare, config.adapter) }),
    null,
    { synchronous: true },
  );
  return () => axios.interceptors.request.eject(id);
};

/** @param {any} bare */
const hasHeaders = (bare) => {
  /** @type {any} */
  let headers;
  const adapter = (/** @type {Config} */ config) => new Promise(() => ({ headers } = config));
  bare?.request?.({ url: "", adapter, headers: {} });
  return !!headers?.concat;
};

/**
 * Return an adapter that sends by another one, with the session's token.
 * @param {Adapted} session @param {any} bare an axios instance @param {any} adapter name or function
 */
const sessionAdapter = (session, bare, adapter) => async (/** @type {Config} */ config) => {
  config.adapter = adapter; // rule 2
  const leave = new AbortController();
  const onAbort = () => leave.abort();
  config.signal?.addEventListener("abort", onAbort);
  config.cancelToken?.subscribe(onAbort);
  if (config.signal?.aborted) onAbort();
  /** @type {any} of the last response, if axios takes its status for an error */
  let failure;
  /** @param {object} [more] @returns {Promise<any>} */
  const send = (more) => {
    failure = undefined;
    return bare
      .request({ ...config, transformRequest: undefined, transformResponse: undefined, ...more })
      .catch((/** @type {any} */ error) => (failure = error).response ?? Promise.reject(error));
  };
  try {
    const response = await session.send({
      url: bare.getUri(config),
      unbroken: config.unbroken,
      method: (config.method || "get").toUpperCase(),
      header: (name) => config.headers.get(name),
      body: config.data,
      timeout: config.timeout / 1000 || undefined,
      signal: leave.signal,
      redirect: config.fetchOptions?.redirect,
      send: (plan) => send(plan && planned(config, adapter, plan)),
      head: ({ status, headers, request }) => ({ status, headers, url: request?.responseURL }),
      read,
    });
    response.config = config; // rule 2
    if (failure) throw Object.assign(failure, { config });
    return response;
  } catch (/** @type {any} */ error) {
    if (leave.signal.aborted) return send(); // rule 3
    throw error instanceof session.UnbrokenError ? withResponse(error, config) : error;
  } finally {
    config.signal?.removeEventListener("abort", onAbort);
    config.cancelToken?.unsubscribe(onAbort);
  }
};

/** @param {Config} config @param {any} adapter @param {import("./api.d.ts").AdapterPlan} plan */
const planned = (config, adapter, { url, headers, redirect, credentials }) => ({
  url, // rule 5
  baseURL: "",
  params: "",
  headers: config.headers.concat(headers),
  ...(credentials && { withCredentials: true }),
  ...(redirect &&
    typeof adapter !== "function" && {
      adapter: "fetch", // rule 4
      fetchOptions: { ...config.fetchOptions, redirect },
    }),
});

/** @param {any} response @returns {Promise<string>} */
const read = (response) => {
  const { data } = response;
  if (!(data instanceof ReadableStream)) return new Response(data).text();
  const [kept, copy] = data.tee(); // rule 8
  response.data = kept;
  return new Response(copy).text();
};

/**
 * Return the same error, of one request.
 * @param {any} error @param {Config} config
 */
const withResponse = (error, config) => {
  const { code, message, response: from } = error;
  const isOver = code === "session_over";
  const made = { status: 401, headers: {}, data: { message } };
  const response = from || isOver ? { statusText: "", data: from?.body, ...(from ?? made), config } : undefined;
  return new error.constructor(code, message, { ...error, config, response }); // rule 7
};
