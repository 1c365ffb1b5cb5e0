/**
 * Stores for places without the page's storage: workers, React Native, mini programs.
 *
 * 1. The session reads and writes a copy in memory; `sync` waits for what is under way and reads again. The session
 *    calls it before and after each refresh, when it is created, and when another tab has written.
 * 2. What cannot be written is removed, so that no spent refresh token stays behind. The copy in memory is kept.
 * 3. A database serves pages and workers of one origin alike.
 *
 * @import { Store } from "./api.d.ts"
 * @import { AsyncStore } from "./stores.d.ts"
 */

/**
 * Return a store for a session over one whose functions may take their time.
 * @param {AsyncStore} slow @returns {Store}
 */
export const asyncStore = ({ get, set, remove }) => {
  /** @type {Map<string, string | null>} */
  const texts = new Map();
  /** @type {Set<string>} */
  const unwritten = new Set();
  /** @type {Promise<unknown>} */
  let writing = Promise.resolve();
  const then = (/** @type {() => unknown} */ work) => (writing = writing.then(work).catch(() => {}));
  return {
    getItem: (key) => texts.get(key) ?? null,
    setItem: (key, text) => {
      texts.set(key, text);
      then(async () => {
        try {
          await set(key, text);
          unwritten.delete(key);
        } catch {
          unwritten.add(key);
          await remove(key); // rule 2
        }
      });
    },
    removeItem: (key) => {
      texts.delete(key);
      then(() => remove(key));
    },
    sync: async (key) => {
      const before = texts.get(key);
      await writing;
      const text = await get(key);
      if (texts.get(key) === before && !unwritten.has(key)) texts.set(key, text ?? null); // rule 1
    },
  };
};

/**
 * Return a store in a database of this origin, for workers and the pages beside them.
 * @param {string} [name] of the database @returns {Store}
 */
export const databaseStore = (name = "unbroken store") => {
  /** @param {IDBTransactionMode} mode @param {(texts: IDBObjectStore) => IDBRequest} work @returns {Promise<any>} */
  const run = (mode, work) =>
    new Promise((resolve, reject) => {
      const opening = indexedDB.open(name);
      opening.onupgradeneeded = () => opening.result.createObjectStore("texts");
      opening.onerror = () => reject(opening.error);
      opening.onsuccess = () => {
        const transaction = opening.result.transaction("texts", mode); // rule 3
        const working = work(transaction.objectStore("texts"));
        transaction.oncomplete = () => resolve(working.result);
        transaction.onabort = () => reject(transaction.error);
        opening.result.close();
      };
    });
  return asyncStore({
    get: (key) => run("readonly", (texts) => texts.get(key)),
    set: (key, text) => run("readwrite", (texts) => texts.put(text, key)),
    remove: (key) => run("readwrite", (texts) => texts.delete(key)),
  });
};
