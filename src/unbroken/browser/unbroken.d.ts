/**
 * unbroken: sessions of two tokens that never break, for pages and workers. Times are in seconds.
 *
 *     const session = createSession({ storage: "localStorage" }); // unbroken's own server, at /auth of this origin
 *     await session.login("ada", "correct horse");
 *     await session.fetch("/orders"); // as the platform's fetch
 *     session.attach(axios); // any axios instance
 *
 *  1. A token in good time is used as it is. An ageing one is renewed behind the request, an old one before it.
 *  2. Whoever renews is alone among all tabs, looks again first, and adopts what another tab has done.
 *  3. The attempt id is stored before the exchange is sent, so that another tab can finish what a dead one began.
 *  4. New tokens are stored in one write, before anybody uses them, and only for the login they were asked for.
 *  5. Only a definite answer ends a session. Everything else means try later, and loses nothing.
 *  6. A challenge to an older token than the current one is answered with the current one, without an exchange.
 *     Otherwise the session is renewed and the request sent once more. That answer is final.
 *  7. A body that can be sent only once is never sent twice, and never empty.
 *  8. Whoever waits can leave at once, and never waits for ever, whatever the exchange does.
 *  9. Login and logout count at once. What waits under one user is never sent for another.
 * 10. Tokens go to allowed origins only. No error, event or message shows one.
 *
 * This file needs no build step. The server sends it without comments and white space (server/browser_module.py).
 *
 * @typedef {object} Ask how the backend is asked for something
 * @property {string} url
 * @property {string} [method]
 * @property {"json" | "form" | "query"} [carry]
 * @property {Record<string, string>} [names] the backend's names for refresh_token, username, password
 * @property {Record<string, unknown>} [extra] goes along
 * @property {Record<string, string>} [headers]
 * @typedef {{ status?: number[], field?: string, values?: unknown[], negate?: boolean }} When a condition on an answer
 * @typedef {object} Dialect how the backend speaks; what is left out is as with unbroken's own server
 * @property {string} [url] where unbroken's own endpoints are; other URLs are relative to it
 * @property {Ask} [refresh]
 * @property {Ask} [login]
 * @property {Ask} [logout]
 * @property {Record<string, string>} [tokens] dotted paths: access_token, refresh_token, expires_in, refresh_seq,
 *   token_type, prefix
 * @property {string} [header]
 * @property {string | null} [scheme] null: as the answer says
 * @property {When} [challenge]
 * @property {When} [granted]
 * @property {When} [over]
 * @property {When} [refused]
 * @property {string[]} [origins]
 * @property {string} [attempt] the header that carries the attempt id; empty for none
 * @typedef {object} Settings
 * @property {"memory" | "localStorage" | "sessionStorage" | "cookie"} [storage]
 * @property {string} [key] the name of the record, the lock and the channel
 * @property {boolean} [visitors] lets requests go without a token while nobody is logged in
 * @property {number} [exchangeTimeout]
 * @property {number} [waitTimeout]
 * @property {{ interval: number, attempts: number } | null} [window] of renewals that the clock did not ask for
 * @property {boolean} [allowPlainHttp]
 * @typedef {{ access?: string, refresh?: string, type?: string, lifetime?: number, at: number,
 *   seq?: number, sid?: unknown }} Tokens
 * @typedef {{ version: number, epoch: number, tokens?: Tokens, over?: string, attempt?: string, pause?: number,
 *   failed?: { code: string, message: string, until: number } }} Stored
 * @typedef {{ status: number, headers: Headers, url?: string }} Shown
 * @typedef {{ reason?: string, retryAfter?: number, field?: string, renewed?: boolean, cause?: unknown }} About
 */
export type Ask = {
    url: string;
    method?: string;
    carry?: "json" | "form" | "query";
    /**
     * the backend's names for refresh_token, username, password
     */
    names?: Record<string, string>;
    /**
     * goes along
     */
    extra?: Record<string, unknown>;
    headers?: Record<string, string>;
};
export type When = {
    status?: number[];
    field?: string;
    values?: unknown[];
    negate?: boolean;
};
export type Dialect = {
    /**
     * where unbroken's own endpoints are; other URLs are relative to it
     */
    url?: string;
    refresh?: Ask;
    login?: Ask;
    logout?: Ask;
    /**
     * dotted paths: access_token, refresh_token, expires_in, refresh_seq,
     * token_type, prefix
     */
    tokens?: Record<string, string>;
    header?: string;
    /**
     * null: as the answer says
     */
    scheme?: string | null;
    challenge?: When;
    granted?: When;
    over?: When;
    refused?: When;
    origins?: string[];
    /**
     * the header that carries the attempt id; empty for none
     */
    attempt?: string;
};
export type Settings = {
    storage?: "memory" | "localStorage" | "sessionStorage" | "cookie";
    /**
     * the name of the record, the lock and the channel
     */
    key?: string;
    /**
     * lets requests go without a token while nobody is logged in
     */
    visitors?: boolean;
    exchangeTimeout?: number;
    waitTimeout?: number;
    /**
     * of renewals that the clock did not ask for
     */
    window?: {
        interval: number;
        attempts: number;
    } | null;
    allowPlainHttp?: boolean;
};
export type Tokens = {
    access?: string;
    refresh?: string;
    type?: string;
    lifetime?: number;
    at: number;
    seq?: number;
    sid?: unknown;
};
export type Stored = {
    version: number;
    epoch: number;
    tokens?: Tokens;
    over?: string;
    attempt?: string;
    pause?: number;
    failed?: {
        code: string;
        message: string;
        until: number;
    };
};
export type Shown = {
    status: number;
    headers: Headers;
    url?: string;
};
export type About = {
    reason?: string;
    retryAfter?: number;
    field?: string;
    renewed?: boolean;
    cause?: unknown;
};
/**
 * `code` is stable: session_over (log in again; `reason`), try_later, renewal_storm (nothing is lost;
 * `retryAfter`), not_replayable (`renewed`), access_denied (`reason`; `cause` is the body of the answer),
 * invalid_request, bad_answer (`field`), misconfigured.
 */
export declare class UnbrokenError extends Error {
    code: string;
    /** @type {string | undefined} */
    reason: string | undefined;
    /** @type {string | undefined} */
    field: string | undefined;
    /** @type {boolean | undefined} */
    renewed: boolean | undefined;
    retryAfter: number;
    /** @param {string} code @param {string} message @param {About} [about] */
    constructor(code: string, message: string, about?: About);
}
/** A session, for all requests of a page. Throws misconfigured. @param {Dialect & Settings} [options] */
export declare const createSession: (options?: Dialect & Settings) => {
    fetch: (input: RequestInfo | URL, init?: RequestInit & {
        unbroken?: boolean;
    }) => Promise<Response & {
        whyNotReplayed?: UnbrokenError;
    }>;
    attach: (axios: any) => () => any;
    login: (username: string, password: string, more?: object) => Promise<void>;
    logout: () => Promise<boolean>;
    adopt: (answer: any) => void;
    /** A good access token, for what is no request. `fresh`: in good time. Empty if it is in a cookie. */
    token: ({ fresh }?: {
        fresh?: boolean | undefined;
    }) => Promise<string>;
    /**
     * A ticket of unbroken's own server, for the URL of one connection without headers: a WebSocket, an EventSource, a
     * download. It is good for 30 seconds, and once.
     * @returns {Promise<string>}
     */
    ticket: () => Promise<string>;
    /** How the session stands: good, ageing, expired or over. */
    readonly status: {
        state: string;
        reason: string;
        renewing: boolean;
        version: number;
    };
    /**
     * Calls the listener with `tokens`, `renewal` or `over`. Each is told once a tab; `here` is true in the one
     * tab that did it. Returns what undoes it.
     * @param {"tokens" | "renewal" | "over"} type @param {(detail: any) => void} listener
     */
    on(type: "tokens" | "renewal" | "over", listener: (detail: any) => void): () => void;
    /** Lets go of the page: no listener and no channel is left. */
    dispose(): void;
};
