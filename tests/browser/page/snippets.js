// The five widespread snippets as they are printed, for one axios each; only addresses and missing parts are filled in.
export const snippets = {
  status_in_body(axios) {
    const refreshToken = async () => {
      const res = await axios.get("/user/refresh", {
        params: { refresh_token: localStorage.getItem("refresh_token") },
      });
      localStorage.setItem("access_token", res.data.access_token || "");
      localStorage.setItem("refresh_token", res.data.refresh_token || "");
      return res;
    };
    axios.interceptors.request.use(function (config) {
      const accessToken = localStorage.getItem("access_token");
      if (accessToken) config.headers.authorization = "Bearer " + accessToken;
      return config;
    });
    let refreshing = false;
    const queue = [];
    axios.interceptors.response.use(
      (response) => response,
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

  bearer_json(request, axios) {
    request.interceptors.request.use((config) => {
      const token = localStorage.getItem("access");
      if (token) config.headers.Authorization = `Bearer ${token}`;
      return config;
    });
    let refreshPromise = null;
    request.interceptors.response.use(
      (response) => response,
      async (error) => {
        const originalRequest = error.config;
        if (!error.response || error.response.status !== 401 || originalRequest._retry) return Promise.reject(error);
        originalRequest._retry = true;
        try {
          if (!refreshPromise) {
            refreshPromise = axios.post("/auth/refresh-token", { refreshToken: localStorage.getItem("refresh") });
          }
          const { data } = await refreshPromise;
          const { accessToken, refreshToken } = data;
          localStorage.setItem("access", accessToken);
          localStorage.setItem("refresh", refreshToken);
          refreshPromise = null;
          originalRequest.headers.Authorization = `Bearer ${accessToken}`;
          return request(originalRequest);
        } catch (refreshError) {
          localStorage.removeItem("access");
          localStorage.removeItem("refresh");
          refreshPromise = null;
          window.left = (window.left ?? 0) + 1; // window.location.href = "/login"
          return Promise.reject(refreshError);
        }
      },
    );
    return ({ accessToken, refreshToken }) => {
      localStorage.setItem("access", accessToken);
      localStorage.setItem("refresh", refreshToken);
    };
  },

  kept_refresh(apiClient, axios) {
    apiClient.interceptors.request.use((config) => {
      const token = localStorage.getItem("accessToken");
      if (token) config.headers["Authorization"] = `Bearer ${token}`;
      return config;
    });
    apiClient.interceptors.response.use(
      (response) => response,
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
