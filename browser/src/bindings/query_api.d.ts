import type { Session } from "../api.d.ts";

/**
 * Tell a client of TanStack Query of a session: which errors to retry, to forget everything at a logout, and to ask
 * again after a login. Returns a function that ends it.
 */
export declare function connectQueries(client: QueryClient, session: Session<any>): () => void;

/** What is needed of a `QueryClient` of TanStack Query 5. */
export interface QueryClient {
  getMutationCache(): { clear(): void };
  getDefaultOptions(): any;
  setDefaultOptions(options: any): void;
  removeQueries(filters: any): void;
  resetQueries(): Promise<void>;
}
