/**
 * Return a function that refreshes the cookies of a browser before its page is rendered.
 *
 * The server of the session has `Cookies("both", path="/")`: both tokens in cookies that are sent to every page.
 */
export declare function cookieRefresher(options: {
  /** Where unbroken's endpoints are, as this server reaches them: `http://127.0.0.1:8400/auth`. */
  url: string;
  /** The `name` of the cookies. Default: `unbroken`. */
  name?: string;
  /** How long one try may take, in seconds. Default: 5. */
  timeout?: number;
  fetch?: typeof fetch;
}): (headers: Headers | Record<string, string | string[] | undefined>) => Promise<Outcome>;

export interface Outcome {
  /**
   * `good`: the access token is good. `expired`: it has expired or is about to, and could not be refreshed now; nothing
   * is lost. `over`: there is no session.
   */
  state: "good" | "expired" | "over";
  /** Why it is not good. */
  reason: string;
  /** The request's headers, with the cookies that the page is to be rendered with. */
  headers: Headers;
  /** What the response has to set: one `Set-Cookie` header each. */
  setCookie: string[];
  /** The access token, for requests to APIs that take no cookies; "" if there is none. */
  token: string;
}
