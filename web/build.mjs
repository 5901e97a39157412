// dist/: the modules, the pages, and ONNX Runtime Web's files. The core (edgerecall.mjs, edgerecall.wasm) goes beside
// them: 'edgerecall cross web' builds it, and puts all of it together.
import { cp, mkdir, rm } from "node:fs/promises";
import { build } from "esbuild";

const ORT = "node_modules/onnxruntime-web/dist";

await rm("dist", { recursive: true, force: true });
await build({
  entryPoints: {
    index: "src/index.ts",
    worker: "src/worker.ts",
    bench: "src/bench/page.ts",
    row_worker: "src/bench/row_worker.ts",
  },
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
});
await cp("pages", "dist", { recursive: true });
await mkdir("dist/ort");
for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  await cp(`${ORT}/${name}`, `dist/ort/${name}`);
}
