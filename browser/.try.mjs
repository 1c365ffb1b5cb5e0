// Builds the browser module: `node build.mjs MODULES SOURCES_HASH OUT`. Use scripts/build-browser.
//
// 1. OUT gets unbroken.js (one minified ES module), unbroken.js.map and unbroken.d.ts. Nothing else is written.
// 2. The map holds all sources, for debuggers. It also holds two hashes, of all that the build was made of and of
//    unbroken.js, so that a test without Node can tell whether the build is current.
// 3. Names of state.d.ts are shortened too, but for those that the platform has.
import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, sourcesHash, out] = process.argv.slice(2);
const require = createRequire(join(modules, "here.js"));
const [esbuild, terser] = [require("esbuild"), require("terser")];
const sources = join(import.meta.dirname, "src");
const target = "unbroken.js";

const bundled = esbuild.buildSync({
  absWorkingDir: import.meta.dirname,
  entryPoints: ["src/session.js"],
  bundle: true,
  format: "esm",
  target: "es2022",
  sourcemap: "external",
  outfile: target,
  write: false,
});
const [map, code] = bundled.outputFiles.map(({ text }) => text);

const declared = readFileSync(join(sources, "state.d.ts"), "utf8").matchAll(/^ {2}(\w+)\??:/gm);
const names = [...declared].map(([, name]) => name).join("|");
const minified = await terser.minify(code, {
  module: true,
  ecma: 2020,
  compress: { passes: 3, inline: 1 },
  mangle: { properties: { regex: new RegExp(`^(${names})$`) } }, // rule 3
  sourceMap: { content: map, filename: target, url: `${target}.map`, includeSources: true },
});

const hashes = { x_sources: sourcesHash, x_module: createHash("sha256").update(minified.code).digest("hex") };
writeFileSync(join(out, target), minified.code);
writeFileSync(join(out, `${target}.map`), JSON.stringify({ ...JSON.parse(minified.map), ...hashes }) + "\n");
copyFileSync(join(sources, "api.d.ts"), join(out, "unbroken.d.ts"));
