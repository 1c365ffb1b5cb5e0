/**
 * Proofs of possession (DPoP, RFC 9449): the part `unbroken-dpop.js`, which only sessions with `dpop` load.
 *
 * 1. The private key cannot be exported. A script in the page can sign with it while it runs, and take nothing away.
 * 2. A session has one key for all of its tabs and workers: the one that was stored first. It is lost with the site's
 *    data. A page without a database has a key of its own in memory.
 * 3. Each try has a proof of its own, with the newest nonce of its origin, and by the clock of its origin.
 * 4. A request is sent again, once, if the server asks for its nonce, or refuses the proof and has another time.
 * 5. Browsers follow redirects with the proof for the first URL. A GET or HEAD that was refused elsewhere on its origin
 *    is sent there, once, with a proof of its own.
 * 6. What the session calls here has these names in all releases: a cache may have this part of another one.
 *
 * @import { Prover } from "./dpop.d.ts"
 */
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DATABASE = "unbroken keys";
const SAME_CLOCK_SECONDS = 5;
const NONCE_REQUIRED = "use_dpop_nonce";
const PROOF_ERROR = /\bdpop\b[^]*\berror="?(use_dpop_nonce|invalid_dpop_proof)\b/i;
const NORMALIZED = /^(get|head|post|put|delete|options)$/i; // by fetch; others are sent as they are spelled

/** @param {string | Uint8Array<ArrayBuffer>} content */
const bytesOf = (content) => (typeof content === "string" ? new TextEncoder().encode(content) : content);

/** @param {string | Uint8Array<ArrayBuffer>} content in UTF-8 @returns {string} base64url */
const encode = (content) =>
  btoa(String.fromCharCode(...bytesOf(content)))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");

/** @param {string} text */
const hashOf = async (text) => encode(new Uint8Array(await crypto.subtle.digest("SHA-256", bytesOf(text))));

/** @param {URL} url */
const withoutQuery = ({ origin, pathname }) => origin + pathname;

/**
 * Return what signs the proofs of a session. Throws an error if the page has no WebCrypto.
 * @param {string} name of the key @returns {Promise<Prover>}
 */
export const openProver = async (name) => {
  if (!globalThis.crypto?.subtle) throw new Error("this page has no WebCrypto: proofs need https");
  const { privateKey, publicKey } = await keyPairOf(name);
  const { crv, kty, x, y } = await crypto.subtle.exportKey("jwk", publicKey);
  const jwk = { crv, kty, x, y }; // in the order of RFC 7638
  const header = encode(JSON.stringify({ typ: "dpop+jwt", alg: "ES256", jwk }));
  /** @type {Record<string, { nonce?: string, ahead?: number }>} what each origin has told; `ahead` in seconds */
  const known = {};
  const knownOf = (/** @type {string} */ origin) => (known[origin] ??= {});

  /** @type {Prover["proof"]} */
  const proof = async (method, href, token) => {
    const url = new URL(href);
    const { nonce, ahead = 0 } = knownOf(url.origin);
    const claims = {
      jti: crypto.randomUUID(), // rule 3
      htm: NORMALIZED.test(method) ? method.toUpperCase() : method,
      htu: withoutQuery(url),
      iat: Math.floor(Date.now() / 1000 + ahead),
      ath: token && (await hashOf(token)),
      nonce,
    };
    const message = `${header}.${encode(JSON.stringify(claims))}`;
    const signature = await crypto.subtle.sign(ALGORITHM, privateKey, bytesOf(message));
    return `${message}.${encode(new Uint8Array(signature))}`;
  };

  /** @type {Prover["send"]} */
  const send = async ({ method, url: first, token, send: sendWith, head, read, discard, mayRepeat }) => {
    let url = new URL(first);
    let [isRepeated, isElsewhere] = [false, false];
    for (;;) {
      const response = await sendWith(await proof(method, url.href, token), url.href);
      const { status, headers, url: href } = head(response);
      const from = new URL(href || url);
      const origin = knownOf(from.origin);
      origin.nonce = headers.get("DPoP-Nonce") ?? origin.nonce;
      const challenge = status === 401 && PROOF_ERROR.exec(headers.get("WWW-Authenticate") ?? "")?.[1];
      const error = challenge || ((status === 400 || status === 401) && read && (await errorIn(read(response))));
      if (withoutQuery(from) !== withoutQuery(url)) {
        const isOurs = from.origin === url.origin && /^(get|head)$/i.test(method);
        if (!challenge || isElsewhere || !isOurs) return response;
        isElsewhere = true;
        url = from; // rule 5
      } else {
        const canHelp = error === NONCE_REQUIRED ? origin.nonce : error === "invalid_dpop_proof" && tellsTime(origin, headers);
        if (isRepeated || !canHelp || mayRepeat?.(response) === false) return response; // rule 4
        isRepeated = true;
      }
      discard?.(response);
    }
  };

  return { thumbprint: await hashOf(JSON.stringify(jwk)), proof, send }; // rule 6
};

/** @param {Promise<string>} text @returns {Promise<unknown>} */
const errorIn = async (text) => {
  try {
    return JSON.parse(await text)?.error;
  } catch {}
};

/**
 * Learn an origin's clock. Return whether it is another one than was known.
 * @param {{ ahead?: number }} origin @param {Pick<Headers, "get">} headers
 */
const tellsTime = (origin, headers) => {
  const seconds = (Date.parse(headers.get("Date") ?? "") - Date.now()) / 1000;
  const { ahead = 0 } = origin;
  if (headers.get("Age") || !(Math.abs(seconds - ahead) > SAME_CLOCK_SECONDS)) return false;
  origin.ahead = seconds;
  return true;
};

/** @param {string} name @returns {Promise<CryptoKeyPair>} */
const keyPairOf = async (name) => {
  const stored = await inDatabase(name).catch(() => undefined);
  if (stored) return stored;
  const made = await crypto.subtle.generateKey(ALGORITHM, false, ["sign"]); // rule 1
  return inDatabase(name, made).catch(() => made); // rule 2
};

/**
 * Return the stored key; store another one if there is none.
 * @param {string} name @param {CryptoKeyPair} [made] @returns {Promise<CryptoKeyPair>}
 */
const inDatabase = (name, made) =>
  new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE);
    opening.onupgradeneeded = () => opening.result.createObjectStore("keys");
    opening.onerror = opening.onblocked = reject;
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction("keys", "readwrite");
      const keys = transaction.objectStore("keys");
      const reading = keys.get(name);
      reading.onsuccess = () => {
        if (made && !reading.result) keys.put(made, name); // rule 2
      };
      transaction.oncomplete = () => resolve(reading.result ?? made);
      transaction.onabort = reject;
      database.close();
    };
  });
