import type { Store } from "./unbroken.js";

/** A store whose functions may take their time. */
export interface AsyncStore {
  get(key: string): string | null | undefined | Promise<string | null | undefined>;
  set(key: string, text: string): unknown;
  remove(key: string): unknown;
}

/** Return a store for a session over one whose functions may take their time. */
export declare function asyncStore(slow: AsyncStore): Store;

/** Return a store in a database of this origin, for workers and the pages beside them. */
export declare function databaseStore(name?: string): Store;
