// The five widespread snippets as they are printed. What they do not show (names that they use, a place for the tokens)
// stands before `printed`; addresses are those of the backend. Each takes the axios it is for, axios itself and the
// names of its page, and gives the function that keeps the tokens of a login.
export const snippets = {
  status_in_body(axios, _, { alert = () => {} } = {}) {
    const refreshToken = async () => {
      const res = await axios.get("/user/refresh", {
        params: { refresh_token: localStorage.getItem("refresh_token") },
      });
      localStorage.setItem("access_token", res.data.access_token || "");
      localStorage.setItem("refresh_token", res.data.refresh_token || "");
      return res;
    };

    // printed
    axios.interceptors.request.use(function (config) {
      const accessToken = localStorage.getItem("access_token");

      if (accessToken) {
        config.headers.authorization = "Bearer " + accessToken;
      }
      return config;
    });
    let refreshing = false;
    const queue = [];

    axios.interceptors.response.use(
      (response) => {
        return response;
      },
      async (error) => {
        let { data, config } = error.response;

        if (refreshing) {
          return new Promise((resolve) => {
            queue.push({ config, resolve });
          });
        }

        if (data.statusCode === 401 && !config.url.includes("/user/refresh")) {
          refreshing = true;

          const res = await refreshToken();

          refreshing = false;

          if (res.status === 200) {
            queue.forEach(({ config, resolve }) => {
              resolve(axios(config));
            });

            return axios(config);
          } else {
            alert("登录过期，请重新登录");
            return Promise.reject(res.data);
          }
        } else {
          return error.response;
        }
      },
    );

    return ({ access_token, refresh_token }) => {
      localStorage.setItem("access_token", access_token);
      localStorage.setItem("refresh_token", refresh_token);
    };
  },

  code_in_200(request, refreshReq, { goLogin = () => {} } = {}) {
    const setToken = (token) => localStorage.setItem("token", token);
    request.interceptors.request.use((config) => {
      config.headers["Authorization"] = localStorage.getItem("token");
      return config;
    });
    request.interceptors.response.use((response) => answered(response, response.data) ?? response);

    // printed
    let isRefreshing = false;
    let requests = [];

    function refreshTokenFun() {
      const refreshToken = localStorage.getItem("refreshToken");
      return refreshReq({ method: "get", url: `/admin/refreshToken?refreshToken=${refreshToken}` });
    }

    // the body of an interceptor, of which no more is printed than this
    function answered(response, res) {
      if (res.code === 401) {
        const config = response.config;
        if (!isRefreshing) {
          isRefreshing = true;
          return refreshTokenFun()
            .then((res) => {
              const { code, data } = res.data;
              if (code === 200 && data) {
                const { tokenHead, token, refreshToken } = data;
                const tokenStr = tokenHead + token;
                setToken(tokenStr);
                localStorage.setItem("refreshToken", refreshToken);
                config.headers["Authorization"] = tokenStr;
                requests.forEach((cb) => cb(tokenStr));
                requests = [];
                return request(config);
              } else {
                goLogin();
              }
            })
            .catch((err) => {
              console.log("refreshToken error", err);
            })
            .finally(() => {
              isRefreshing = false;
            });
        } else {
          return new Promise((resolve) => {
            requests.push((token) => {
              config.headers["Authorization"] = token;
              resolve(request(config));
            });
          });
        }
      }
    }

    return ({ data }) => {
      setToken(data.tokenHead + data.token);
      localStorage.setItem("refreshToken", data.refreshToken);
    };
  },

  bearer_json(request, axios, { window = { location: {} } } = {}) {
    const [ACCESS_TOKEN_KEY, REFRESH_TOKEN_KEY] = ["access", "refresh"];

    // printed
    const TokenService = {
      ACCESS_TOKEN_KEY: ACCESS_TOKEN_KEY,
      REFRESH_TOKEN_KEY: REFRESH_TOKEN_KEY,

      getAccessToken() {
        return localStorage.getItem(ACCESS_TOKEN_KEY);
      },

      getRefreshToken() {
        return localStorage.getItem(REFRESH_TOKEN_KEY);
      },

      setTokens(accessToken, refreshToken) {
        localStorage.setItem(ACCESS_TOKEN_KEY, accessToken);
        localStorage.setItem(REFRESH_TOKEN_KEY, refreshToken);
      },

      clearTokens() {
        localStorage.removeItem(ACCESS_TOKEN_KEY);
        localStorage.removeItem(REFRESH_TOKEN_KEY);
      },
    };

    let refreshPromise = null;

    request.interceptors.request.use(
      (config) => {
        const token = TokenService.getAccessToken();
        if (token) {
          config.headers.Authorization = `Bearer ${token}`;
        }
        return config;
      },
      (error) => Promise.reject(error),
    );

    request.interceptors.response.use(
      (response) => response,
      async (error) => {
        const originalRequest = error.config;

        if (!error.response || error.response.status !== 401 || originalRequest._retry) {
          return Promise.reject(error);
        }

        originalRequest._retry = true;

        try {
          if (!refreshPromise) {
            refreshPromise = axios.post("/auth/refresh-token", { refreshToken: TokenService.getRefreshToken() });
          }

          const { data } = await refreshPromise;
          const { accessToken, refreshToken } = data;

          TokenService.setTokens(accessToken, refreshToken);

          refreshPromise = null;

          originalRequest.headers.Authorization = `Bearer ${accessToken}`;
          return request(originalRequest);
        } catch (refreshError) {
          TokenService.clearTokens();
          refreshPromise = null;
          window.location.href = "/login";
          return Promise.reject(refreshError);
        }
      },
    );

    return ({ accessToken, refreshToken }) => TokenService.setTokens(accessToken, refreshToken);
  },

  own_header(axios, _, { store, Message }) {
    let isRefreshing = false;
    const requests = [];

    // printed
    function refreshToken() {
      return axios
        .request({
          url: "/token/refresh",
          headers: { isToken: false },
          method: "post",
          params: { refreshToken: refreshToken },
        })
        .then((res) => res.data);
    }
    axios.interceptors.response.use(
      (res) => {
        const status = Number(res.status) || 200;
        const message = res.data.msg || "未知错误";
        if (status === 400 && res.data.code === 401) {
          const config = res.config;
          if (!isRefreshing) {
            isRefreshing = true;
            return refreshToken()
              .then((res) => {
                console.log("刷新token:", res);
                let data = res.data;
                config.headers["token"] = data.accessToken;
                requests.forEach((cb) => cb(data.accessToken));
                return axios(config);
              })
              .catch((e) => {
                return Promise.reject(e);
              })
              .finally(() => {
                isRefreshing = false;
              });
          } else {
            return new Promise((resolve) => {
              requests.push((token) => {
                config.headers["token"] = token;
                resolve(axios(config));
              });
            });
          }
        }
        if (status === 400 && res.data.code === 402) {
          Message({ message: "登录已过期,请重新登录", type: "error" });
          return Promise.reject(new Error("登录已过期,请重新登录"));
        }
        console.log("进入结果拦截器：");
        if (status !== 200) {
          if (status === 400 && res.data.code === 400) {
            Message({ message: message, type: "error" });
          }
          return Promise.reject(res);
        }
        return res;
      },
      (error) => {
        console.log(error);
        return Promise.reject(new Error(error));
      },
    );
    axios.interceptors.request.use(
      (config) => {
        const isToken = (config.data || {}).isToken === false;
        let token = store.state.user.accessToken;
        if (token && !isToken) {
          config.headers["token"] = token;
        }
        return config;
      },
      (error) => {
        return Promise.reject(error);
      },
    );

    return ({ data }) => (store.state.user.accessToken = data.accessToken);
  },

  kept_refresh(apiClient, axios) {
    // printed
    apiClient.interceptors.request.use(
      (config) => {
        const token = localStorage.getItem("accessToken");
        if (token) {
          config.headers["Authorization"] = `Bearer ${token}`;
        }
        return config;
      },
      (error) => {
        return Promise.reject(error);
      },
    );

    apiClient.interceptors.response.use(
      (response) => {
        return response;
      },
      async (error) => {
        const originalRequest = error.config;
        if (error.response.status === 401 && !originalRequest._retry) {
          originalRequest._retry = true;
          try {
            const refreshToken = localStorage.getItem("refreshToken");
            const response = await axios.post("/refresh-token", { refreshToken: refreshToken });
            const newToken = response.data.accessToken;
            localStorage.setItem("accessToken", newToken);
            originalRequest.headers["Authorization"] = `Bearer ${newToken}`;
            return apiClient(originalRequest);
          } catch (refreshError) {
            console.log("Refresh token failed:", refreshError);
          }
        }
        return Promise.reject(error);
      },
    );

    return ({ accessToken, refreshToken }) => {
      localStorage.setItem("accessToken", accessToken);
      localStorage.setItem("refreshToken", refreshToken);
    };
  },
};
