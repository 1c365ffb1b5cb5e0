/**
 * unbroken: sessions with an access token and a refresh token that never break, for pages and workers.
 *
 *     const session = createSession({ storage: "localStorage" }); // unbroken's own server, at /auth of this origin
 *     await session.login("ada", "correct horse");
 *     await session.fetch("/orders"); // as the platform's fetch
 *     session.attach(axios); // any axios instance
 *
 * All times are in seconds.
 */
import type { Prover } from "./dpop.d.ts";

/**
 * Create a session, for all requests of a page. Throws `UnbrokenError` with the code `misconfigured`. `User` is the type
 * of `status.user`.
 */
export declare function createSession<User = any>(options?: Options): Session<User>;

/** What `unbroken-core.js` has: the rules of refreshing, with fetch and all storages. */
export interface CoreSession<User = any> {
  /** The platform's `fetch`, with the session's token. `unbroken: false` sends a request without the token. */
  fetch(input: RequestInfo | URL, init?: RequestInit & { unbroken?: boolean }): Promise<SessionResponse>;
  /** Send a request by an HTTP client of your own. */
  send<R extends object>(request: AdapterRequest<R>): Promise<R>;
  /** Log in; `more` is sent along. */
  login(username: string, password: string, more?: object): Promise<void>;
  /** Log out: forget the tokens in all tabs at once, then revoke them. Resolves to whether the server confirmed it. */
  logout(): Promise<boolean>;
  /** Take the tokens of a token response as a new login. Throws `bad_answer`. */
  importTokens(response: unknown): void;
  /**
   * Return a usable access token, for protocols without an adapter; "" while it is in a cookie. With `fresh`, one
   * that does not expire soon.
   */
  token(options?: { fresh?: boolean }): Promise<string>;
  /** The same object as long as nothing changes. */
  readonly status: Status<User>;
  /** Add a listener. Returns a function that removes it. */
  on<Type extends keyof Events>(type: Type, listener: (detail: Events[Type]) => void): () => void;
  /** Remove all listeners from the page and close the channel to other tabs. */
  dispose(): void;
  readonly UnbrokenError: typeof UnbrokenError;
}

export interface Session<User = any> extends CoreSession<User> {
  /** Give the requests of an axios instance the session's token. Returns a function that detaches it. */
  attach(axios: Axios): () => void;
  /** Log out; with `everywhere`, end all other sessions of the user before, which needs unbroken's own server. */
  logout(options?: { everywhere?: boolean }): Promise<boolean>;
  /**
   * Return a ticket of unbroken's own server, for the URL of one connection that cannot send headers: a WebSocket, an
   * EventSource, a download. It is valid for 30 seconds, and once.
   */
  ticket(): Promise<string>;
  /**
   * Return a proof for one try of one request by other means, with `dpop`: the header `DPoP`. `token` is the access
   * token that goes along.
   */
  proof(method: string, url: string | URL, token?: string): Promise<string>;
  /** Resolves to the status as soon as it is known whether there is a session. Never rejects. */
  readonly ready: Promise<Status<User>>;
  /** Call a listener when `status` has changed, also with time. Returns a function that removes it. */
  subscribe(listener: () => void): () => void;
}

export interface Status<User = any> {
  readonly state: "good" | "ageing" | "expired" | "over";
  /** Why the session is over; "" while it is not. */
  readonly reason: string;
  readonly refreshing: boolean;
  readonly version: number;
  /** Who is logged in: what the token response has at `user`, or the claims of its access token. */
  readonly user: User | undefined;
}

/** Each event is dispatched once in each tab. `here` is true in the one tab that caused it. */
export interface Events {
  /** There are new tokens. */
  tokens: { here: boolean };
  /** A refresh of this tab started or failed. */
  refresh: { state: "started" } | { state: "failed"; error: UnbrokenError };
  /** The session is over, another user has logged in, or a request needs a login and there was none. */
  over: { reason: string; here: boolean };
  /** `status` has changed. With time it changes too: see `subscribe`. */
  status: {};
}

/** A request, as the adapter of an HTTP client shows it. */
export interface AdapterRequest<R> {
  url: string | URL;
  /** Needed with `dpop`. */
  method?: string;
  /** `false`: without the session's token. */
  unbroken?: boolean;
  /** Return the caller's own value of a header. */
  header?(name: string): string | null | undefined;
  body?: unknown;
  /** How long to wait for a refresh. */
  timeout?: number;
  signal?: AbortSignal | null;
  /** The caller's wish. */
  redirect?: RequestRedirect;
  /** Send it, as planned; without a plan as it is. It is called again after a challenge. */
  send(plan?: AdapterPlan): Promise<R>;
  /** Return what a response begins with; `url` is where it came from, if a redirect may have been followed. */
  head(response: R): { status: number; headers: Pick<Headers, "get">; url?: string };
  /** Read the body, so that the caller can read it all the same. */
  read(response: R): Promise<string>;
  /** Called for a response that is not read. */
  discard?(response: R): void;
}

export interface AdapterPlan {
  url: string;
  /** To set, in addition to the caller's. */
  headers: Record<string, string>;
  /** How to treat redirects; undefined: as usual. */
  redirect?: RequestRedirect;
  credentials?: "include";
}

/** Where the record of a session is kept, as text: like the platform's `Storage`. */
export interface Store {
  getItem(key: string): string | null;
  setItem(key: string, text: string): void;
  removeItem(key: string): void;
  /** Wait until all is written, and take what others have written. See `asyncStore`. */
  sync?(key: string): Promise<void>;
}

/** `whyNotReplayed` says why a rejected request was not sent again. */
export type SessionResponse = Response & { whyNotReplayed?: UnbrokenError };

/** What is needed of an axios instance. */
export interface Axios {
  create(): any;
  interceptors: { request: { use(...interceptor: any[]): number; eject(id: number): void } };
}

export interface Options extends Dialect {
  /** Where the tokens are. Default: `memory`. */
  storage?: "memory" | "localStorage" | "sessionStorage" | "cookie";
  /** A store of your own, in the place of the page's. With `storage: "cookie"` it holds no token. */
  store?: Store;
  /** What sends requests: anything like the platform's `fetch`, which is the default. */
  fetch?: typeof fetch;
  /** Is told what the session decides, without secrets: `debug: console.debug`. */
  debug?: (...what: any[]) => void;
  /**
   * Bind the session to a key of this browser that cannot be exported (RFC 9449): `true` loads `unbroken-dpop.js` from
   * beside this module; or that module, imported.
   */
  dpop?: boolean | { openProver(name: string): Promise<Prover> };
  /** The name of the stored record, the key of `dpop`, the lock and the channel. Default: by the URL of `refresh`. */
  key?: string;
  /** Send requests without a token while there is no login. Default: false. */
  visitors?: boolean;
  /** How long one refresh, login or logout request may take. Default: 10. */
  refreshTimeout?: number;
  /** How long a request waits for a refresh. Default: 60. */
  waitTimeout?: number;
  /** The limit of refreshes that are not due by age. `null`: no limit. Default: 5 in 30 seconds. */
  window?: { interval: number; attempts: number } | null;
  /** Send tokens and passwords without https to other machines. Default: false. */
  allowPlainHttp?: boolean;
}

/** What a backend expects and sends. Everything that is left out is as with unbroken's own server. */
export interface Dialect {
  /** Where the endpoints of unbroken's own server are; other URLs are relative to it. Default: `/auth`. */
  url?: string;
  refresh?: RequestTemplate;
  login?: RequestTemplate;
  logout?: RequestTemplate;
  tokens?: TokenPaths;
  /** The header that carries the access token. Default: `Authorization`. */
  header?: string;
  /** The word before the access token. `null`: the `token_type` of the response. Default: `Bearer`. */
  scheme?: string | null;
  /** Which response rejects the access token. Default: a 401 for our scheme (RFC 6750, section 3). */
  challenge?: ResponseMatch;
  /** Which response has new tokens. Default: 200, 201. */
  succeeded?: ResponseMatch;
  /** Which response to a refresh ends the session. Default: 400 or 401 with the error `invalid_grant`. */
  endsSession?: ResponseMatch;
  /** Which response refuses a login. Default: 401, 403. */
  loginFailed?: ResponseMatch;
  /** Where the access token may be sent. Default: the origin of `refresh`. */
  origins?: string[];
  /** The header for the idempotency key; "" for none. Default: `Idempotency-Key` for unbroken's own server. */
  idempotencyHeader?: string;
}

/** A request of the module's own. */
export interface RequestTemplate {
  url: string;
  method?: string;
  /** How values are sent. Default: `json`. */
  encoding?: "json" | "form" | "query";
  /** The backend's names for `refresh_token`, `username` and `password`. */
  rename?: Record<string, string>;
  /** Values that are sent along. */
  extra?: Record<string, unknown>;
  headers?: Record<string, string>;
}

/** A condition on a response: its status, and the value at a dotted path of its JSON body. */
export interface ResponseMatch {
  status?: number[];
  field?: string;
  values?: unknown[];
  /** Match any value but these. */
  negate?: boolean;
}

/** Dotted paths into a token response. `prefix` is a field whose text stands before the access token, to the letter. */
export interface TokenPaths {
  access_token?: string;
  refresh_token?: string;
  expires_in?: string;
  refresh_seq?: string;
  token_type?: string;
  prefix?: string;
  user?: string;
}

export type ErrorCode =
  | "session_over" /** Log in again; `reason` says why. */
  | "try_later" /** Nothing is lost; try again in `retryAfter` seconds. */
  | "renewal_storm" /** New tokens are rejected again and again. */
  | "not_replayable" /** The request was rejected and its body is spent; see `refreshed`. */
  | "access_denied" /** The login was refused; `cause` is the body of the response. */
  | "invalid_request" /** The server did not understand the login. */
  | "bad_answer" /** The response has no usable token; `field` names what is missing. */
  | "misconfigured";

export interface ErrorDetails {
  reason?: string;
  retryAfter?: number;
  field?: string;
  refreshed?: boolean;
  cause?: unknown;
  response?: unknown;
}

/** Every error of this module. `code` is stable: programs compare it, messages are for people. */
export declare class UnbrokenError extends Error {
  constructor(code: ErrorCode, message: string, details?: ErrorDetails);
  name: "UnbrokenError";
  code: ErrorCode;
  reason: string | undefined;
  /** What is missing in a response, or the option that is wrong. */
  field: string | undefined;
  /** Whether the session has new tokens, so that the request can be made anew. */
  refreshed: boolean | undefined;
  retryAfter: number;
  /** The server's last response, if there was one. With axios it is one of axios's. */
  response: any;
  /** Only with axios. */
  config: any;
  /** Everything but `cause`, `response` and `config`. */
  toJSON(): object;
}
