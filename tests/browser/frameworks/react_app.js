// An application of React with TanStack Query in StrictMode, as a test sees it.
import { QueryClient, QueryClientProvider, useQueries } from "@tanstack/react-query";
import { createElement as h, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { createSession } from "unbroken-session";
import { connectQueries } from "unbroken-session/query";
import { RequireLogin, SessionProvider, useSession } from "unbroken-session/react";

window.complaints = [];
for (const level of ["error", "warn"]) console[level] = (...said) => complaints.push(said.map(String).join(" "));

const Facts = () => {
  const { isLoggedIn, state, user } = useSession();
  return h("b", null, `${isLoggedIn} ${state} ${user?.sub ?? "nobody"}`);
};

window.startReact = (options, { count = 20, query = {}, login, isGuarded = true } = {}) => {
  const session = createSession(options);
  window.asked = 0;
  const queryFn = async ({ queryKey: [, number] }) => {
    window.asked++;
    const response = await session.fetch(`/echo?${number}`);
    if (!response.ok) throw new Error(`status ${response.status}`);
    return (await response.json()).user;
  };
  const Orders = () => {
    const queries = Array.from({ length: count }, (_, number) => ({ queryKey: ["order", number], queryFn, ...query }));
    return h("i", null, useQueries({ queries }).map(({ data, error }) => data ?? error?.code ?? "…").join(" "));
  };
  const client = new QueryClient();
  const disconnect = connectQueries(client, session);
  const root = createRoot(document.body.appendChild(document.createElement("div")));
  const guard = { login: login ?? ((back) => h("u", null, back)), pending: h("s", null, "?") };
  const tree = isGuarded ? h(RequireLogin, guard, h(Orders)) : h(Orders);
  const queries = h(QueryClientProvider, { client }, h(Facts), tree);
  root.render(h(StrictMode, null, h(SessionProvider, { session }, queries)));
  const text = (name) => document.querySelector(name)?.textContent ?? null;
  Object.assign(window, { session, client, disconnect, root, text });
};
