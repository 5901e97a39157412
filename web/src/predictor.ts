/** What a runtime is to everything above it. */
import type { Artifact, Spec } from "./bundle.ts";

/** What computes: the processor, by WebAssembly, or the GPU. */
export type Provider = "wasm" | "webgpu";

export interface RunOptions {
  readonly provider: Provider;
  readonly threads: number;
  readonly precision: string; // execution precision that is asked for
}

export interface RuntimeInfo {
  readonly version: string;
  readonly precision: string; // as configured: no runtime here tells what it ran
  readonly threads: number | null;
  readonly detail: Record<string, unknown>;
}

/** A model in a runtime. One call at a time. */
export interface Predictor {
  readonly info: RuntimeInfo;
  /** Tensors `(count, 3, H, W)` to raw embeddings `(count, dim)`. */
  embed(tensors: Float32Array, count: number): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Opens an artifact. model: its bytes; folder: of this package's files. */
export type OpenPredictor = (
  model: Uint8Array,
  artifact: Artifact,
  spec: Spec,
  options: RunOptions,
  folder: URL,
) => Promise<Predictor>;
