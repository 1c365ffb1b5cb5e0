// Components rendered on a server: no timer, no listener and no subscription is left, so this program ends by itself.
import { createElement } from "react";
import { renderToString as renderReact } from "react-dom/server";
import { createSession } from "unbroken-session";
import { RequireLogin, SessionProvider, useSession as useReact } from "unbroken-session/react";
import { sessionPlugin, useSession } from "unbroken-session/vue";
import { createSSRApp, h } from "vue";
import { renderToString as renderVue } from "vue/server-renderer";

const session = createSession({ storage: "cookie", url: "http://127.0.0.1:9/auth" });
const shown = ({ isLoggedIn, state }) => `${isLoggedIn} ${state}`;
const Facts = () => shown(useReact());
const guard = createElement(RequireLogin, { pending: "pending" }, "secret");
const react = renderReact(createElement(SessionProvider, { session }, createElement(Facts), guard));
const vue = await renderVue(
  createSSRApp({
    setup() {
      const { isLoggedIn, state } = useSession();
      return () => h("p", shown({ isLoggedIn: isLoggedIn.value, state: state.value }));
    },
  }).use(sessionPlugin, session),
);
session.dispose();
console.log(JSON.stringify([react, vue]));
