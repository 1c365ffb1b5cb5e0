// An application of Vue 3 with Pinia and vue-router, as a test sees it.
import { createPinia, defineStore } from "pinia";
import { createSession } from "unbroken-session";
import { guardRoutes, sessionPlugin, sessionStore, useSession, wayBack } from "unbroken-session/vue";
import { createApp, defineComponent, h } from "vue";
import { createRouter, createWebHistory, RouterView } from "vue-router";

const shown = ({ isLoggedIn, state, user }) => `${isLoggedIn} ${state} ${user?.sub ?? "nobody"}`;
const Facts = defineComponent({
  setup() {
    const { isLoggedIn, state, user } = useSession();
    return () => h("b", shown({ isLoggedIn: isLoggedIn.value, state: state.value, user: user.value }));
  },
});

window.startVue = async (options, { parts = 1 } = {}) => {
  const session = createSession(options);
  const { subscribe } = session;
  let subscribed = 0;
  session.subscribe = (listener) => {
    subscribed++;
    const leave = subscribe(listener);
    return () => {
      subscribed--;
      leave();
    };
  };
  const useStore = defineStore("session", sessionStore(session));
  const Store = defineComponent({ setup: () => (store) => h("i", shown(useStore())) });
  const page = (name, ...children) => ({ render: () => h("main", { id: name }, children.map((child) => h(child))) });
  const routes = [
    { path: "/", component: page("home") },
    { path: "/login", component: page("login") },
    { path: "/orders/:id", component: page("orders"), meta: { requiresAuth: true } },
  ];
  const router = createRouter({ history: createWebHistory(), routes });
  const stopGuard = guardRoutes(router, session);
  const root = { render: () => [...Array.from({ length: parts }, () => h(Facts)), h(Store), h(RouterView)] };
  const pinia = createPinia();
  const app = createApp(root).use(pinia).use(router).use(sessionPlugin, session);
  const main = document.body.appendChild(document.createElement("div"));
  await router.push("/");
  app.mount(main);
  const facts = () => [...document.querySelectorAll("b, i")].map(({ textContent }) => textContent);
  Object.assign(window, { session, router, pinia, app, facts, stopGuard, useStore, subscribed: () => subscribed });
};
Object.assign(window, { useSession, sessionPlugin, createApp, wayBack });
