// Builds the browser module: `node build.mjs MODULES SOURCES_HASH OUT`. Use scripts/build-browser.
//
// 1. OUT gets each part as one minified ES module, its source map and its types.
// 2. A map holds all sources, for debuggers. It also holds two hashes, of all that the build was made of and of the
//    module, so that a test without Node can tell whether the build is current.
// 3. Names of state.d.ts are shortened too, but for those that the platform has.
// 4. `FULL` is false in the core, and what stands behind it is left out.
// 5. A binding imports its framework, which the application has already, and nothing else.
// 6. Next has to be told that the hooks are for the browser.
// 7. A part imports nothing. The whole module loads `unbroken-dpop.js` from beside it, where it is asked for.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, sourcesHash, out] = process.argv.slice(2);
const require = createRequire(join(modules, "here.js"));
const [esbuild, terser] = [require("esbuild"), require("terser")];
const sources = join(import.meta.dirname, "src");
const PARTS = {
  unbroken: "session",
  "unbroken-core": "core_alone",
  "unbroken-axios": "axios",
  "unbroken-stores": "stores",
  "unbroken-dpop": "dpop",
};
const BINDINGS = ["vue", "react", "query", "angular", "server"];
const FRAMEWORKS = ["vue", "react", "@angular/*", "rxjs"];
for (const name of BINDINGS) PARTS[`unbroken-${name}`] = `bindings/${name}`;

const RENAMED = { api: "./unbroken.js", dpop: "./unbroken-dpop.js" };

const stateNames = readFileSync(join(sources, "state.d.ts"), "utf8").matchAll(/^ {2}(\w+)\??:/gm);
const names = [...stateNames].map(([, name]) => name).join("|");
const settings = {
  module: true,
  ecma: 2020,
  compress: { passes: 3, unsafe: true, unsafe_arrows: true, unsafe_methods: true },
};
const withState = { ...settings, mangle: { properties: { regex: new RegExp(`^(${names})$`) } } }; // rule 3

for (const [part, source] of Object.entries(PARTS)) {
  const target = `${part}.js`;
  const isBinding = source.startsWith("bindings/");
  const bundled = esbuild.buildSync({
    absWorkingDir: import.meta.dirname,
    entryPoints: [`src/${source}.js`],
    bundle: true,
    external: isBinding ? FRAMEWORKS : part === "unbroken-dpop" ? [] : ["./src/dpop.js"], // rules 5 and 7
    define: { FULL: `${part !== "unbroken-core"}` }, // rule 4
    format: "esm",
    target: "es2022",
    sourcemap: "external",
    outfile: target,
    write: false,
  });
  const [map, text] = bundled.outputFiles.map(({ text }) => text);
  const code = text.replace('"./src/dpop.js"', '"./unbroken-dpop.js"'); // rule 7
  const sourceMap = { content: map, filename: target, url: `${target}.map`, includeSources: true };
  const minified = await terser.minify(code, {
    ...(isBinding ? settings : withState),
    ...(part === "unbroken-react" && { format: { preamble: '"use client";' } }), // rule 6
    sourceMap,
  });
  const hashes = { x_sources: sourcesHash, x_module: createHash("sha256").update(minified.code).digest("hex") };
  writeFileSync(join(out, target), minified.code);
  writeFileSync(join(out, `${target}.map`), JSON.stringify({ ...JSON.parse(minified.map), ...hashes }) + "\n"); // rule 2
  const types = source === "session" ? "api" : isBinding ? `${source}_api` : source;
  const declared = readFileSync(join(sources, `${types}.d.ts`), "utf8");
  writeFileSync(join(out, `${part}.d.ts`), declared.replace(/\.{1,2}\/(api|dpop)(\.d\.ts|\.js)/g, (_, name) => RENAMED[name])); // rule 1
}
