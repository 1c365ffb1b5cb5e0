// Builds the same entry with Vite, webpack and esbuild: `node bundlers.mjs`. Each result is run.
import { statSync, writeFileSync } from "node:fs";
import { basename, resolve } from "node:path";
import { buildSync } from "esbuild";
import { build as viteBuild } from "vite";
import webpack from "webpack";

const entry = `
import { attach } from "unbroken-session/axios";
import { cookieRefresher } from "unbroken-session/server";
import { asyncStore } from "unbroken-session/stores";
import { createSession } from "unbroken-session";
import { useSession } from "unbroken-session/vue";
import { RequireLogin } from "unbroken-session/react";
import { connectQueries } from "unbroken-session/query";
const kept = new Map();
const store = asyncStore({ get: (key) => kept.get(key), set: (key, text) => kept.set(key, text), remove: (key) => kept.delete(key) });
export const session = createSession({ url: "https://shop.example.com/auth", store });
session.importTokens({ access_token: "a", refresh_token: "r" });
export const kinds = [attach, cookieRefresher, useSession, RequireLogin, connectQueries].map((one) => typeof one);
`;
const unused = `import "unbroken-session/vue"; import { createSession } from "unbroken-session"; export const nothing = 1;`;
writeFileSync("entry.js", entry);
writeFileSync("unused.js", unused);

const builds = {
  esbuild: (input, out) => buildSync({ entryPoints: [input], bundle: true, format: "esm", minify: true, outfile: out, logLevel: "error" }),
  vite: (input, out) => {
    const lib = { entry: resolve(input), formats: ["es"], fileName: () => basename(out) };
    return viteBuild({ logLevel: "error", configFile: false, build: { outDir: ".", emptyOutDir: false, lib, minify: true } });
  },
  webpack: (input, out) =>
    new Promise((done, failed) => {
      const output = { path: resolve("."), filename: basename(out), module: true, library: { type: "module" } };
      const settings = { mode: "production", entry: `./${input}`, experiments: { outputModule: true }, output, devtool: false };
      webpack(settings, (error, stats) => (error || stats.hasErrors() ? failed(error ?? stats.toString()) : done()));
    }),
};
const came = {};
for (const [name, build] of Object.entries(builds)) {
  await build("entry.js", `entry-${name}.mjs`);
  const { kinds, session } = await import(resolve(`entry-${name}.mjs`));
  came[name] = { kinds, state: session.status.state };
}
builds.esbuild("unused.js", "unused.mjs");
came.esbuild.unused = statSync("unused.mjs").size;
console.log(JSON.stringify(came));
process.exit(0);
