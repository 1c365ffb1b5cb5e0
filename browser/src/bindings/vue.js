/**
 * Vue 3: a session as a plugin, a composable, a Pinia store, and a guard of routes.
 *
 * 1. An application subscribes once, however many components show the session, and ends with its scope. While a server
 *    renders, nothing changes.
 * 2. Pinia stores what is a ref, and shows what is computed. So all of it is computed: no plugin stores the session a
 *    second time.
 * 3. A page that needs a login waits until it is known whether there is a session.
 * 4. When the session ends while such a page is open, the user goes to the login page; and back from it as soon as there
 *    is a session again, also when another tab has logged in.
 *
 * @import { Session } from "../api.d.ts"
 */
import { computed, effectScope, inject, onScopeDispose, shallowRef } from "vue";
import { isIn, wayBack } from "./shared.js";

export { wayBack };

const KEY = Symbol("session");

/** @type {typeof import("./vue_api.d.ts").sessionStore} */
export const sessionStore = (session) => () => {
  const { login, logout } = session;
  const now = shallowRef(session.status);
  if (globalThis.document) onScopeDispose(session.subscribe(() => (now.value = session.status))); // rule 1
  return {
    status: computed(() => now.value), // rule 2
    state: computed(() => now.value.state),
    user: computed(() => now.value.user),
    isLoggedIn: computed(() => isIn(now.value)),
    login,
    logout,
  };
};

/** @param {Session} session @returns {import("./vue_api.d.ts").SessionRefs} */
const refsOf = (session) => ({ session, ...sessionStore(session)() });

/** @type {typeof import("./vue_api.d.ts").sessionPlugin} */
export const sessionPlugin = {
  install(app, session) {
    if (!session?.subscribe) throw new TypeError("give the session to the plugin: app.use(sessionPlugin, session)");
    const scope = effectScope(true);
    app.provide(KEY, scope.run(() => refsOf(session))); // rule 1
    app.onUnmount?.(() => scope.stop());
  },
};

/** @type {typeof import("./vue_api.d.ts").useSession} */
export const useSession = (session) => {
  const found = session ? refsOf(session) : inject(KEY, null);
  if (!found) throw new TypeError("there is no session here: call app.use(sessionPlugin, session) first");
  return /** @type {any} */ (found);
};

/** @type {typeof import("./vue_api.d.ts").guardRoutes} */
export const guardRoutes = (router, session, { login = "/login", home = "/" } = {}) => {
  /** @param {{ fullPath: string }} from */
  const toLogin = ({ fullPath }) => ({ path: login, query: { back: fullPath } });
  const here = () => router.currentRoute.value;
  const ends = [
    router.beforeEach(async (to) => {
      const isLogin = to.path === login;
      if (!isLogin && !to.meta.requiresAuth) return;
      await session.ready; // rule 3
      if (isLogin && isIn(session.status)) return wayBack(to.query.back, home);
      if (!isLogin && session.status.state === "over") return toLogin(to);
    }),
    session.on("over", () => void (here().meta.requiresAuth && router.push(toLogin(here())))), // rule 4
    session.on("tokens", () => void (here().path === login && router.replace(wayBack(here().query.back, home)))),
  ];
  return () => ends.forEach((end) => end());
};
