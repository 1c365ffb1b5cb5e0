import type { CoreSession, Options } from "./unbroken.js";

export { UnbrokenError } from "./unbroken.js";
export type * from "./unbroken.js";

/** Create a session of unbroken's own server. Throws `UnbrokenError` with the code `misconfigured`. */
export declare function createSession<User = any>(options?: Omit<Options, "storage"> & { storage?: Exclude<Options["storage"], "sessionStorage"> }): CoreSession<User>;
