/** ONNX Runtime Web, on WebAssembly with SIMD or on WebGPU. Its files lie in `ort/`, those with WebGPU in `ort/webgpu/`,
 * and are loaded when a model is opened.
 */
import type * as Ort from "onnxruntime-web";

import type { OpenPredictor, Predictor } from "./predictor.ts";

interface Gpu {
  requestAdapter(): Promise<{ readonly info?: Record<"vendor" | "architecture" | "description", string> } | null>;
}

/** The GPU in the browser's words. Throws Error where there is none: the runtime would compute on the processor. */
async function gpuAdapter(): Promise<string> {
  const { gpu } = navigator as Navigator & { readonly gpu?: Gpu };
  if (!gpu) throw new Error("this browser has no WebGPU here: it needs https, or localhost, and a browser that has it");
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("this browser gives no WebGPU adapter on this device");
  const { vendor, architecture, description } = adapter.info ?? {}; // older browsers do not tell
  return [vendor, architecture, description].filter(Boolean).join(" ") || "a GPU that the browser does not name";
}

/** Its number of threads is one for each page or worker: fixed by the first model that is opened there. */
export const openOnnxRuntime: OpenPredictor = async (model, artifact, spec, options, folder) => {
  if (options.precision !== "fp32") throw new Error("onnxruntime runs the graph's own types: ask for fp32");
  const gpu = options.provider === "webgpu";
  const adapter = gpu ? await gpuAdapter() : undefined;
  const files = new URL(gpu ? "ort/webgpu/" : "ort/", folder);
  const ort = (await import(/* @vite-ignore */ new URL("ort.js", files).href)) as typeof Ort;
  // Under names that every server of files knows the type of.
  ort.env.wasm.wasmPaths = { mjs: new URL("ort-wasm.js", files).href, wasm: new URL("ort-wasm.wasm", files).href };
  ort.env.wasm.numThreads = options.threads;
  ort.env.logLevel = "fatal";
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [options.provider],
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
      detail: { provider: options.provider, isolated: globalThis.crossOriginIsolated, ...(adapter && { adapter }) },
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
