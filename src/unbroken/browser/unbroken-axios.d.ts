import type { Axios, CoreSession } from "./unbroken.js";

/** Give the requests of an axios instance the session's token. Returns a function that detaches it. */
export declare function attach(session: Pick<CoreSession, "send" | "UnbrokenError">, axios: Axios): () => void;
