/**
 * The state of one session, which its functions share. Types only.
 *
 * Each function takes the state as its first argument and destructures what it needs of it. Which file changes a part
 * of it is said below; `Settings` never change.
 *
 * The build shortens the names that are declared here, where the platform has no such name: they are seen nowhere
 * else.
 */
import type { Events, Options, Status, Store, UnbrokenError } from "./api.d.ts";
import type { Prover } from "./dpop.d.ts";
import type { Flight } from "./refresh_coordinator.js";
import type { StoredRecord } from "./storage.js";

/** The options with the defaults filled in; without `challenge`, RFC 6750 says what a challenge is. */
export type Settings = Required<Omit<Options, Optional>> & Pick<Options, Optional> & Derived;

type Optional = "challenge" | "store" | "debug" | "dpop";

interface Derived {
  /** The URL of unbroken's endpoints; other endpoints are relative to it. */
  base: string;
  /** The URLs, without query, of refresh, login and logout; "" for one that does not exist. */
  endpoints: string[];
  usesCookies: boolean;
  isOwnServer: boolean;
}

export interface SessionState extends Settings {
  /** In [0, 1), of this session. */
  jitter: number;

  /** storage.js: where the record is stored; undefined: in memory only. */
  pageStorage: Store | undefined;
  /** session.js: holds the lock while some work is done, on a page without Web Locks. */
  holdWithoutLocks?: (key: string, patience: number, work: () => Promise<void>) => Promise<void>;
  /** proofs.js: returns what signs proofs, where the option `dpop` asks for it. */
  openProofs?: () => Promise<Prover>;
  /** core.js: when a store that takes its time has been read. */
  opened?: Promise<void>;
  /** storage.js: the record as a text, and parsed. */
  text: string | null;
  record: StoredRecord;
  /** storage.js, tabs.js: access tokens that are not stored, by their version. */
  accessTokens: Record<number, string | undefined>;
  /** storage.js: the device token of a login, where it cannot be stored. */
  device?: string;

  /** credentials.js: the last values that the header with the token had. */
  ownValues: Set<string | undefined>;

  /** tabs.js: the record that listeners were told of. */
  noticed: StoredRecord;
  /** refresh_coordinator.js: what to call when the login that is current now is over. */
  waiting: Set<(error: unknown) => void>;
  listeners: Set<(type: keyof Events, detail: any) => void>;
  channel?: BroadcastChannel;
  /** tabs.js, refresh_rules.js: whether listeners were told that nobody is logged in. */
  isVisitor?: boolean;

  /** refresh_coordinator.js: the refresh that runs now. */
  flight?: Flight;
  /** refresh_coordinator.js: when refreshes that were not due by age began, in milliseconds since the Unix epoch. */
  refreshTimes: number[];
  /** refresh_rules.js: why the last refresh failed, if it was in this page. */
  failure?: UnbrokenError;

  /** request_flow.js: when endpoints have rejected brand-new tokens, in milliseconds since the Unix epoch. */
  rejectedAt: Record<string, number>;

  /** status.js: the last status. */
  shown?: Status;
}
