/** ONNX Runtime Web, on WebAssembly with SIMD. Its files lie in `ort/` and are loaded when a model is opened. */
import type * as Ort from "onnxruntime-web";

import type { OpenPredictor, Predictor } from "./predictor.ts";

/** Its number of threads is one for each page or worker: fixed by the first model that is opened there. */
export const openOnnxRuntime: OpenPredictor = async (model, artifact, spec, options, folder) => {
  if (options.precision !== "fp32") throw new Error("onnxruntime runs the graph's own types: ask for fp32");
  const files = new URL("ort/", folder);
  const ort = (await import(/* @vite-ignore */ new URL("ort.js", files).href)) as typeof Ort;
  // Under names that every server of files knows the type of.
  ort.env.wasm.wasmPaths = { mjs: new URL("ort-wasm.js", files).href, wasm: new URL("ort-wasm.wasm", files).href };
  ort.env.wasm.numThreads = options.threads;
  ort.env.logLevel = "fatal";
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
    logSeverityLevel: 4,
  });
  const [output] = session.outputNames;
  if (!session.inputNames.includes(spec.input_name) || output === undefined) {
    throw new Error(`the model's inputs are ${session.inputNames.join(", ")}, the bundle says '${spec.input_name}'`);
  }
  const threads = ort.env.wasm.numThreads; // 1 where the page is not isolated, whatever was asked for
  return {
    info: {
      version: ort.env.versions.web ?? ort.env.versions.common,
      precision: artifact.quantisation === "int8" ? "int8+fp32" : "fp32",
      threads,
      detail: { provider: "wasm", isolated: globalThis.crossOriginIsolated },
    },
    async embed(tensors, count) {
      const input = new ort.Tensor("float32", tensors, [count, ...spec.input_shape]);
      const made = (await session.run({ [spec.input_name]: input }))[output];
      const values = made?.data;
      if (!(values instanceof Float32Array) || values.length !== count * spec.embedding_dim) {
        throw new Error(`onnxruntime gave ${made?.type} ${made?.dims.join(" x ")}, expected ${count} x ${spec.embedding_dim}`);
      }
      return values;
    },
    close: () => session.release(),
  } satisfies Predictor;
};
