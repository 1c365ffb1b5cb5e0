/**
 * React: a session as a hook, and a guard of what needs a login.
 *
 * 1. A page that a server has rendered knows no session; its first rendering in the browser has to be the same.
 * 2. With cookies the server has to be asked whether there is a session. Until that is known the guard shows neither the
 *    children nor the login page; if it cannot be found out, the children, whose requests say why.
 *
 * @import { Status } from "../api.d.ts"
 */
import { createContext, createElement, useContext, useEffect, useState, useSyncExternalStore } from "react";
import { isIn, wayBack } from "./shared.js";

export { wayBack };

/** @type {Status} */
const UNKNOWN = { state: "expired", reason: "", refreshing: false, version: 0, user: undefined };
const Context = createContext(/** @type {any} */ (undefined));

/** @type {typeof import("./react_api.d.ts").SessionProvider} */
export const SessionProvider = ({ session, children }) => createElement(Context.Provider, { value: session }, children);

/** @type {typeof import("./react_api.d.ts").useSession} */
export const useSession = (given) => {
  const found = useContext(Context);
  const session = given ?? found;
  if (!session) throw new TypeError("there is no session here: put <SessionProvider session={session}> around it");
  const status = useSyncExternalStore(
    session.subscribe,
    () => session.status,
    () => UNKNOWN, // rule 1
  );
  const { state, user } = status;
  return { session, status, state, user, isLoggedIn: isIn(status), login: session.login, logout: session.logout };
};

/** @param {{ to: string }} props */
const Leave = ({ to }) => {
  useEffect(() => location.assign(to), [to]);
  return null;
};

/** @type {typeof import("./react_api.d.ts").RequireLogin} */
export const RequireLogin = ({ session: given, children, pending = null, login = "/login" }) => {
  const { session, state, isLoggedIn } = useSession(given);
  const [asked, setAsked] = useState(/** @type {unknown} */ (undefined));
  useEffect(() => void session.ready.then(() => setAsked(session)), [session]); // rule 2
  if (state !== "over") return isLoggedIn || asked === session ? children : pending;
  const { pathname, search, hash } = location;
  const back = encodeURIComponent(pathname + search + hash);
  return typeof login === "string" ? createElement(Leave, { to: `${login}?back=${back}` }) : login(back);
};
