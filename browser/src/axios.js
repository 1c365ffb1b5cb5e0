/**
 * Axios: the session works as an adapter, below the interceptors and transforms of the instance.
 *
 * 1. Interceptors and transforms run once, however often the request is sent.
 * 2. The config that the caller gets back is the caller's own, so that the request can be sent again with it.
 * 3. Axios has an error of its own for a request that was aborted, and the caller gets that one.
 * 4. A header of another name than `Authorization` needs control of redirects, which only axios's fetch adapter has.
 *    An adapter that is a function of the caller's stays.
 * 5. A request with a token goes to the URL that was judged, and not to a relative one, which `<base>` may have changed.
 *
 * @import { Axios } from "./api.d.ts"
 * @import { SessionState } from "./state.d.ts"
 *
 * @typedef {any} Config of an axios request; axios is no dependency, so its types are not at hand
 */
import { isCovered, isForwarded, redirectMode, resolve } from "./credentials.js";
import { sendAuthorized } from "./request_flow.js";

/**
 * Give the requests of an axios instance the session's token. Return a function that detaches it.
 * @param {SessionState} state @param {Axios} axios
 */
export const attach = (state, axios) => {
  const bare = axios.create(); // rule 1: without interceptors, and without the defaults, which a config has already
  for (const name in bare.defaults) delete bare.defaults[name];
  const id = axios.interceptors.request.use(
    (/** @type {Config} */ config) => ({ ...config, adapter: sessionAdapter(state, bare, config.adapter) }),
    null,
    { synchronous: true },
  );
  return () => axios.interceptors.request.eject(id);
};

/**
 * Return an adapter that sends by another one, with the session's token.
 * @param {SessionState} state @param {any} bare an axios instance @param {any} adapter name or function
 */
const sessionAdapter = (state, bare, adapter) => async (/** @type {Config} */ config) => {
  config.adapter = adapter; // rule 2
  const url = resolve(bare.getUri(config));
  const signal = config.signal ?? config.cancelToken?.toAbortSignal?.();
  /** @type {any} of the last response, if axios takes its status for an error */
  let failure;
  /** @param {object} [more] @returns {Promise<any>} */
  const send = (more) => {
    failure = undefined;
    return bare
      .request({ ...config, transformRequest: undefined, transformResponse: undefined, ...more })
      .catch((/** @type {any} */ error) => (failure = error).response ?? Promise.reject(error));
  };
  const judged = { url: url.href, baseURL: "", params: "" }; // rule 5
  const sending = isCovered(state, url, config, config.headers.get(state.header))
    ? sendAuthorized(state, {
        url,
        body: config.data,
        timeout: config.timeout / 1000 || undefined,
        signal,
        send: (headers) =>
          send({ ...judged, headers: config.headers.concat(headers), ...sendOptions(state, config) }),
        head: ({ status, headers, request }) => ({ status, headers, url: request?.responseURL }),
        read: ({ data }) => new Response(data).text(),
      })
    : send();
  const response = await sending.catch((error) => (signal?.aborted ? send() : Promise.reject(error))); // rule 3
  response.config = config; // rule 2
  if (failure) throw Object.assign(failure, { config });
  return response;
};

/** @param {SessionState} state @param {Config} config */
const sendOptions = (state, { adapter, fetchOptions }) => ({
  ...(state.usesCookies && { withCredentials: true }),
  ...(isForwarded(state) &&
    typeof adapter !== "function" && {
      adapter: "fetch", // rule 4
      fetchOptions: { ...fetchOptions, redirect: redirectMode(state, fetchOptions?.redirect) },
    }),
});
