import type { App, ComputedRef } from "vue";
import type { Session, Status } from "./unbroken.js";

/** What the composable and the store have; it changes with the session. */
export interface SessionFacts<User = any> {
  status: ComputedRef<Status<User>>;
  state: ComputedRef<Status["state"]>;
  /** Who is logged in. */
  user: ComputedRef<User | undefined>;
  /** False also as long as it is not known: see `session.ready`. */
  isLoggedIn: ComputedRef<boolean>;
  login: Session<User>["login"];
  logout: Session<User>["logout"];
}

export interface SessionRefs<User = any> extends SessionFacts<User> {
  session: Session<User>;
}

/** `app.use(sessionPlugin, session)` */
export declare const sessionPlugin: { install(app: App, session: Session): void };

/** Return the session of the application, or a given one, as refs. To be called where `inject` may be. */
export declare function useSession<User = any>(session?: Session<User>): SessionRefs<User>;

/** For Pinia: `defineStore("session", sessionStore(session))`. */
export declare function sessionStore<User = any>(session: Session<User>): () => SessionFacts<User>;

/**
 * Guard the routes with `meta: { requiresAuth: true }`: without a session they lead to the login page, and that leads
 * back after the login. Returns a function that ends it.
 */
export declare function guardRoutes(
  router: Router,
  session: Session,
  options?: {
    /** The path of the login page. Default: `/login`. */
    login?: string;
    /** Where the login page leads to if it was the first page. Default: `/`. */
    home?: string;
  },
): () => void;

/** Return the path that the login page has as `back`, if it is one of this site; otherwise `home`. */
export declare function wayBack(back: unknown, home?: string): string;

/** What is needed of a router of vue-router 4 or newer. */
export interface Router {
  readonly currentRoute: { readonly value: Route };
  beforeEach(guard: (to: any) => any): () => void;
  push(to: any): Promise<unknown>;
  replace(to: any): Promise<unknown>;
}

interface Route {
  path: string;
  fullPath: string;
  query: Record<string, any>;
  meta: Record<PropertyKey, any>;
}
