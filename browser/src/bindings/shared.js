/**
 * What the bindings of all frameworks share.
 *
 * 1. With cookies nothing is known before the first refresh; a status of version 0 then says that tokens have expired.
 * 2. A way back leads to a page of this site. A link to the login page may have another URL there, so it is read as
 *    browsers read it: `//host`, `/\host` and a tab between the slashes are other sites.
 *
 * @import { Status } from "../api.d.ts"
 */
const OWN = "http://own";

/**
 * Return whether a user is logged in.
 * @param {Status} status
 */
export const isIn = ({ version, state }) => version > 0 && state !== "over"; // rule 1

/**
 * Return where to go after a login: the path that the URL of the login page has as `back`, or home.
 * @param {unknown} back @param {string} [home]
 */
export const wayBack = (back, home = "/") => {
  try {
    const { origin, pathname, search, hash } = new URL(/** @type {string} */ (back), OWN);
    if (back && origin === OWN && !pathname.startsWith("//")) return pathname + search + hash; // rule 2
  } catch {}
  return home;
};
