// Two nodes that render pages for one browser, each with a server of unbroken beside it that has the same store as the
// other one: `node rendering.mjs TRIALS AUTH AUTH`, with the lines of Set-Cookie on standard input.
// Prints what came of it as JSON.
import { readFileSync } from "node:fs";
import { cookieRefresher } from "unbroken-session/server";

const [trials, ...urls] = process.argv.slice(2);
const PARALLEL = 40;
const jar = new Map();
const set = (lines) => {
  for (const line of lines) {
    const [name, ...value] = line.split(";")[0].split("=");
    jar.set(name, value.join("="));
  }
};
const cookie = (without) => [...jar].filter(([name]) => !name.includes(without)).map((pair) => pair.join("=")).join("; ");
set(readFileSync(0, "utf8").trim().split("\n"));

const later = (milliseconds) => new Promise((done) => setTimeout(done, Math.random() * milliseconds));
const shuffled = (list) => list.map((one) => [Math.random(), one]).sort(([a], [b]) => a - b).map(([, one]) => one);
let requests = 0;
const generations = new Set();
// A network that lets requests and responses overtake each other.
const slowFetch = async (...request) => {
  requests++;
  await later(4);
  const response = await fetch(...request);
  const { refresh_seq } = await response.clone().json();
  generations.add(refresh_seq);
  await later(4);
  return response;
};
const nodes = urls.map((url) => cookieRefresher({ url, fetch: slowFetch }));

const result = { won: 0, rotations: [], mostRequests: 0, failures: [] };
let late; // responses of the trial before, which the browser gets after those of this one
for (let trial = 0; trial < trials; trial++) {
  generations.clear();
  requests = 0;
  const headers = { Cookie: cookie("access"), "User-Agent": "Mozilla/5.0 Firefox/150.0" }; // its access token is gone
  const pages = await Promise.all(
    Array.from({ length: PARALLEL }, async (_, number) => {
      await later(10);
      return nodes[number % 2](headers);
    }),
  );
  for (const { state, reason, token } of pages) if (state !== "good" || !token) result.failures.push(reason || state);
  const lines = shuffled(pages.map(({ setCookie }) => setCookie));
  lines.forEach(set);
  const newest = Math.max(...generations, result.newest ?? 0); // without a request: a node knew them
  result.rotations.push(newest - (result.newest ?? newest - 1));
  result.newest = newest;
  result.mostRequests = Math.max(result.mostRequests, requests);
  // what the browser has now is good, and the server takes it for the newest
  const next = await nodes[trial % 2]({ Cookie: cookie("nothing"), "User-Agent": headers["User-Agent"] });
  result.won += next.state === "good" && next.setCookie.length === 0;
  if (late && trial % 3 === 0) set(late);
  late = lines[0];
}
console.log(JSON.stringify(result));
