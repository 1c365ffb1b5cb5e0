// Each contender as its documentation shows it, with tokens in localStorage: given the tokens of a login, it becomes a
// function that sends one request to the API and returns the answer's status.

const form = (token) => new URLSearchParams({ grant_type: "refresh_token", refresh_token: token });
const save = (granted, expires = Date.now() + granted.expires_in * 1000) =>
  localStorage.setItem("tokens", JSON.stringify({ ...granted, expires }));
const saved = () => JSON.parse(localStorage.getItem("tokens"));

/** Our session, told of the token endpoint. */
const ours = async (granted, first) => {
  const { createSession } = await import("/unbroken.js");
  const refresh = { url: "/token", encoding: "form", extra: { grant_type: "refresh_token" } };
  const session = createSession({ storage: "localStorage", refresh });
  if (first) session.importTokens(granted);
  return session;
};

/** One of the widespread snippets, as the tests have it, on an axios of its own. */
const snippet = (name) => async (granted, first) => {
  const [{ default: axios }, { snippets }] = await Promise.all([import("axios"), import("/snippets.js")]);
  const mine = axios.create();
  const keep = snippets[name](mine, axios);
  const camel = { accessToken: granted.access_token, refreshToken: granted.refresh_token };
  if (first) keep({ ...granted, ...camel });
  return async (query) => (await mine.get("/api" + query)).status;
};

/** Alova, by one of its two ways to look at a token. */
const alova = (interceptor) => async (granted, first) => {
  const [{ createAlova }, { default: adapter }, client] = await Promise.all([
    import("alova"),
    import("alova/fetch"),
    import("alova/client"),
  ]);
  if (first) save(granted);
  const renew = async () => {
    const method = mine.Post("/token", form(saved().refresh_token));
    method.meta = { authRole: "refreshToken" };
    save(await (await method).json());
  };
  const { onAuthRequired, onResponseRefreshToken } = interceptor(client, renew, (method) => {
    method.config.headers.Authorization = "Bearer " + saved().access_token;
  });
  const mine = createAlova({
    requestAdapter: adapter(),
    cacheFor: null,
    beforeRequest: onAuthRequired(),
    responded: onResponseRefreshToken((answer) => {
      if (!answer.ok) throw new Error(answer.status);
      return answer;
    }),
  });
  return async (query) => (await mine.Get("/api" + query)).status;
};

/** axios-auth-refresh, with options of its own. */
const authRefresh = (options) => async (granted, first) => {
  const [{ default: axios }, { createAuthRefresh }] = await Promise.all([
    import("axios"),
    import("axios-auth-refresh"),
  ]);
  if (first) save(granted);
  const mine = axios.create();
  mine.interceptors.request.use((request) => {
    request.headers["Authorization"] = `Bearer ${saved().access_token}`;
    return request;
  });
  createAuthRefresh(mine, async (failed) => {
    const { data } = await axios.post("/token", form(saved().refresh_token));
    save(data);
    failed.response.config.headers["Authorization"] = "Bearer " + data.access_token;
  }, options);
  return async (query) => (await mine.get("/api" + query)).status;
};

export const contenders = {
  async plain_fetch(granted) {
    const headers = { Authorization: "Bearer " + granted.access_token };
    return async (query) => (await fetch("/api" + query, { headers })).status;
  },

  async plain_axios(granted) {
    const { default: axios } = await import("axios");
    const mine = axios.create({ headers: { Authorization: "Bearer " + granted.access_token } });
    return async (query) => (await mine.get("/api" + query)).status;
  },

  async ours_fetch(granted, first) {
    const session = await ours(granted, first);
    return async (query) => (await session.fetch("/api" + query)).status;
  },

  async ours_axios(granted, first) {
    const { default: axios } = await import("axios");
    const mine = axios.create();
    (await ours(granted, first)).attach(mine);
    return async (query) => (await mine.get("/api" + query)).status;
  },

  axios_auth_refresh: authRefresh({}),
  axios_auth_refresh_each: authRefresh({ deduplicateRefresh: false }),

  alova_by_clock: alova(({ createClientTokenAuthentication }, handler, assignToken) =>
    createClientTokenAuthentication({
      refreshToken: { isExpired: () => saved().expires < Date.now(), handler },
      assignToken,
    }),
  ),

  alova_by_status: alova(({ createServerTokenAuthentication }, handler, assignToken) =>
    createServerTokenAuthentication({
      refreshTokenOnSuccess: { isExpired: ({ status }) => status === 401, handler },
      assignToken,
    }),
  ),

  async ky(granted, first) {
    const { default: ky } = await import("ky");
    if (first) save(granted);
    const mine = ky.extend({
      hooks: {
        beforeRequest: [({ request }) => request.headers.set("Authorization", `Bearer ${saved().access_token}`)],
        afterResponse: [
          async ({ request, response, retryCount }) => {
            if (response.status === 401 && retryCount === 0) {
              const granted = await ky.post("/token", { body: form(saved().refresh_token) }).json();
              save(granted);
              const headers = new Headers(request.headers);
              headers.set("Authorization", `Bearer ${granted.access_token}`);
              return ky.retry({ request: new Request(request, { headers }), code: "TOKEN_REFRESHED" });
            }
          },
        ],
      },
    });
    return async (query) => (await mine.get("/api" + query)).status;
  },

  async ofetch(granted, first) {
    const { ofetch } = await import("ofetch");
    if (first) save(granted);
    let refreshing;
    const ask = () => ofetch("/token", { method: "POST", body: form(saved().refresh_token) });
    const refresh = () => (refreshing ??= ask().then((granted) => save(granted)).finally(() => (refreshing = undefined)));
    const mine = ofetch.create({
      retry: 1,
      retryStatusCodes: [401],
      onRequest: ({ options }) => options.headers.set("Authorization", `Bearer ${saved().access_token}`),
      onResponseError: async ({ response }) => {
        if (response.status === 401) await refresh();
      },
    });
    return async (query) => (await mine.raw("/api" + query)).status;
  },

  async oidc_client(granted, first) {
    const { User, UserManager, WebStorageStateStore } = await import("oidc-client-ts");
    const authority = location.origin;
    const metadata = { issuer: authority, token_endpoint: `${authority}/token`, authorization_endpoint: `${authority}/login` };
    const userStore = new WebStorageStateStore({ store: localStorage });
    const client = { client_id: "page", redirect_uri: authority, scope: "", automaticSilentRenew: false };
    const manager = new UserManager({ authority, metadata, userStore, ...client });
    const expires_at = Math.floor(Date.now() / 1000) + granted.expires_in;
    if (first) await manager.storeUser(new User({ ...granted, expires_at, profile: { sub: "ada" } }));
    const ask = async (query, { access_token }) =>
      (await fetch("/api" + query, { headers: { Authorization: `Bearer ${access_token}` } })).status;
    return async (query) => {
      const status = await ask(query, await manager.getUser());
      return status === 401 ? ask(query, await manager.signinSilent()) : status;
    };
  },

  async oauth2_client(granted, first) {
    const { OAuth2Client, OAuth2Fetch } = await import("@badgateway/oauth2-client");
    const { access_token: accessToken, refresh_token: refreshToken, expires_in: lifetime } = granted;
    const storeToken = (token) => localStorage.setItem("token-store", JSON.stringify(token));
    if (first) storeToken({ accessToken, refreshToken, expiresAt: Date.now() + lifetime * 1000 });
    const client = new OAuth2Client({ server: location.origin, clientId: "page", tokenEndpoint: "/token" });
    const getStoredToken = () => JSON.parse(localStorage.getItem("token-store"));
    const wrapper = new OAuth2Fetch({ client, getNewToken: () => null, storeToken, getStoredToken });
    return async (query) => (await wrapper.fetch("/api" + query)).status;
  },

  async supertokens(granted, first) {
    const { default: SuperTokens } = await import("supertokens-website");
    SuperTokens.init({ apiDomain: location.origin, apiBasePath: "/auth", tokenTransferMethod: "header" });
    const { access_token: access, refresh_token: refresh } = granted;
    if (first) await fetch("/auth/login?" + new URLSearchParams({ access, refresh }));
    return async (query) => (await fetch("/api" + query)).status;
  },

  status_in_body: snippet("status_in_body"),
  bearer_json: snippet("bearer_json"),
  kept_refresh: snippet("kept_refresh"),

  async code_in_200(granted, first) {
    const { default: axios } = await import("axios");
    const setToken = (token) => localStorage.setItem("token", token);
    if (first) {
      setToken("Bearer " + granted.access_token);
      localStorage.setItem("refreshToken", granted.refresh_token);
    }
    const request = axios.create();
    request.interceptors.request.use((config) => {
      config.headers["Authorization"] = localStorage.getItem("token");
      return config;
    });
    let isRefreshing = false;
    let requests = [];
    request.interceptors.response.use((response) => {
      const config = response.config;
      if (response.data.code !== 401) return response;
      if (isRefreshing)
        return new Promise((resolve) => {
          requests.push((token) => {
            config.headers["Authorization"] = token;
            resolve(request(config));
          });
        });
      isRefreshing = true;
      return axios
        .get(`/admin/refreshToken?refreshToken=${localStorage.getItem("refreshToken")}`)
        .then((res) => {
          const { code, data } = res.data;
          if (code !== 200 || !data) return; // goLogin()
          const token = data.tokenHead + data.token;
          setToken(token);
          localStorage.setItem("refreshToken", data.refreshToken);
          config.headers["Authorization"] = token;
          requests.forEach((cb) => cb(token));
          requests = [];
          return request(config);
        })
        .catch((err) => console.log("refreshToken error", err))
        .finally(() => (isRefreshing = false));
    });
    return async (query) => (await request.get("/code" + query)).data.code;
  },

  async own_header(granted, first) {
    const { default: axios } = await import("axios");
    const store = ({ accessToken, refreshToken }) => {
      localStorage.setItem("accessToken", accessToken);
      localStorage.setItem("refreshToken", refreshToken);
    };
    if (first) store({ accessToken: granted.access_token, refreshToken: granted.refresh_token });
    const validateStatus = (status) => status < 500; // else its branch for 400 is never reached
    const mine = axios.create({ validateStatus });
    const refresh = () =>
      axios
        .request({
          url: "/token/refresh",
          method: "post",
          params: { refreshToken: localStorage.getItem("refreshToken") },
        })
        .then((res) => res.data);
    mine.interceptors.request.use((config) => {
      config.headers["token"] = localStorage.getItem("accessToken");
      return config;
    });
    let isRefreshing = false;
    const requests = [];
    mine.interceptors.response.use((res) => {
      if (res.status !== 400 || res.data.code !== 401) return res.status === 200 ? res : Promise.reject(res);
      const config = res.config;
      if (isRefreshing)
        return new Promise((resolve) => {
          requests.push((token) => {
            config.headers["token"] = token;
            resolve(mine(config));
          });
        });
      isRefreshing = true;
      return refresh()
        .then(({ data }) => {
          store(data);
          config.headers["token"] = data.accessToken;
          requests.forEach((cb) => cb(data.accessToken));
          return mine(config);
        })
        .finally(() => (isRefreshing = false));
    });
    return async (query) => (await mine.get("/own" + query)).status;
  },
};
