// dist/: the modules, the pages, and ONNX Runtime Web's files. The core (edgerecall.js, edgerecall.wasm) goes beside
// them: 'edgerecall cross web' builds it, and puts all of it together.
import { cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const ORT = "node_modules/onnxruntime-web/dist";

await rm("dist", { recursive: true, force: true });
const options = { outdir: "dist", bundle: true, target: "es2022", minify: true, legalComments: "none" };
await build({
  ...options,
  entryPoints: {
    index: "src/index.ts",
    worker: "src/worker.ts",
    bench: "src/bench/page.ts",
    row_worker: "src/bench/row_worker.ts",
    source: "src/app/source.ts",
  },
  format: "esm",
});
await build({ ...options, entryPoints: { sw: "src/app/sw.ts" }, format: "iife" }); // no module: Firefox takes none
await cp("pages", "dist", { recursive: true });
await mkdir("dist/ort/webgpu", { recursive: true });
const names = {
  "ort.wasm.min.mjs": "ort.js",
  "ort-wasm-simd-threaded.mjs": "ort-wasm.js",
  "ort-wasm-simd-threaded.wasm": "ort-wasm.wasm",
  "ort.webgpu.min.mjs": "webgpu/ort.js",
  "ort-wasm-simd-threaded.asyncify.mjs": "webgpu/ort-wasm.js",
  "ort-wasm-simd-threaded.asyncify.wasm": "webgpu/ort-wasm.wasm",
};
for (const [name, served] of Object.entries(names)) await cp(`${ORT}/${name}`, `dist/ort/${served}`);
await cp("licences", "dist/licences", { recursive: true });
