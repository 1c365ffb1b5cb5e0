/**
 * The lock of pages that have no Web Locks API, as on plain http.
 *
 * 1. The lock is the name of its holder, in a database. A transaction compares and writes it, alone among all tabs.
 * 2. A page that is left while it holds the lock says so in localStorage, where that cannot be too late. One that has
 *    crashed loses the lock after a time.
 */
import { sleep } from "./lock.js";

const POLL_SECONDS = 0.05;

/**
 * Do some work while no other tab does.
 * @param {string} key of the lock @param {number} patience in seconds @param {() => Promise<void>} work
 */
export const holdInDatabase = async (key, patience, work) => {
  const me = `${Math.random()}`;
  const began = performance.now();
  const leave = () => localStorage.setItem(`${key} left`, me);
  const isFree = (/** @type {string | undefined} */ holder) =>
    !holder || holder === departed(key) || performance.now() - began > patience * 1000; // rule 2
  while (!(await compareAndSet(key, isFree, me))) await sleep(POLL_SECONDS);
  globalThis.addEventListener?.("pagehide", leave);
  try {
    await work();
  } finally {
    globalThis.removeEventListener?.("pagehide", leave);
    await compareAndSet(key, (holder) => holder === me, "").catch(() => {});
  }
};

/** @param {string} key */
const departed = (key) => {
  try {
    return localStorage.getItem(`${key} left`);
  } catch {} // a worker has none
};

/**
 * Write a value if the one that is there allows it. Resolves to whether it did.
 * @param {string} key @param {(value: string | undefined) => boolean} allows @param {string} value
 * @returns {Promise<boolean>}
 */
const compareAndSet = (key, allows, value) =>
  new Promise((resolve, reject) => {
    const opening = indexedDB.open(key);
    opening.onupgradeneeded = () => opening.result.createObjectStore(key);
    opening.onerror = reject;
    opening.onsuccess = () => {
      const transaction = opening.result.transaction(key, "readwrite"); // rule 1
      const values = transaction.objectStore(key);
      const reading = values.get(key);
      let isAllowed = false;
      reading.onsuccess = () => {
        isAllowed = allows(reading.result);
        if (isAllowed) values.put(value, key);
      };
      transaction.oncomplete = () => resolve(isAllowed);
      transaction.onabort = reject;
      opening.result.close();
    };
  });
