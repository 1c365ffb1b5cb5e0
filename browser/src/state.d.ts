/**
 * The state of one session, which its functions share. Types only.
 *
 * Each function takes the state as its first argument and destructures what it needs of it. Which file changes a part
 * of it is said below; `Settings` never change.
 *
 * The build shortens the names that are declared here, where the platform has no such name: they are seen nowhere
 * else.
 */
import type { Options } from "./api.d.ts";
import type { Flight } from "./refresh_coordinator.js";
import type { StoredRecord } from "./storage.js";

/** The options with the defaults filled in; without `challenge`, RFC 6750 says what a challenge is. */
export type Settings = Required<Omit<Options, "challenge">> & Pick<Options, "challenge"> & Derived;

interface Derived {
  /** The URL of unbroken's endpoints; other endpoints are relative to it. */
  base: string;
  /** The URLs, without query, of refresh, login and logout; "" for one that does not exist. */
  endpoints: string[];
  usesCookies: boolean;
}

export interface SessionState extends Settings {
  /** The platform's, from when the session was created. */
  fetch: typeof fetch;
  /** In [0, 1), of this session. */
  jitter: number;

  /** storage.js: where the record is stored; undefined: in memory only. */
  pageStorage: Storage | undefined;
  /** storage.js: the record as a text, and parsed. */
  text: string | null;
  record: StoredRecord;
  /** storage.js: access tokens that are not stored, by their version. */
  accessTokens: Record<number, string | undefined>;
  /** storage.js: the device token of a login, where it cannot be stored. */
  device?: string;

  /** credentials.js: every value that the header with the token had. */
  ownValues: Set<string | undefined>;

  /** tabs.js: the record that listeners were told of. */
  noticed: StoredRecord;
  /** tabs.js: aborted when the login that is current now is over. */
  endOfLogin: AbortController;
  events: EventTarget;
  channel?: BroadcastChannel;

  /** refresh_coordinator.js: the refresh that runs now. */
  flight?: Flight;
  /** refresh_coordinator.js: when refreshes that were not due by age began, in milliseconds since the Unix epoch. */
  refreshTimes: number[];

  /** request_flow.js: endpoints that reject brand-new tokens, and until when their challenges count for nothing. */
  leftAloneUntil: Record<string, number>;
}
