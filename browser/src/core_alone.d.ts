import type { CoreSession, Options } from "./api.d.ts";

export { UnbrokenError } from "./api.js";
export type * from "./api.d.ts";

/** Create a session of unbroken's own server. Throws `UnbrokenError` with the code `misconfigured`. */
export declare function createSession<User = any>(options?: Omit<Options, "storage"> & { storage?: Exclude<Options["storage"], "sessionStorage"> }): CoreSession<User>;
