/** What goes between a page and the worker that holds its model. */
import type { Storage } from "./core.ts";
import type { Proof, ModelOptions } from "./model.ts";

export type Request =
  | { readonly do: "open"; readonly bundle: string; readonly options: ModelOptions }
  | { readonly do: "embed"; readonly image: Uint8Array | ImageData }
  | { readonly do: "add"; readonly gallery: number; readonly rows: Float32Array; readonly storage: Storage }
  | { readonly do: "search"; readonly gallery: number; readonly query: Float32Array; readonly k: number };

/** Of a model that is open. */
export interface Opened {
  readonly dim: number;
  readonly runtime: string;
  readonly version: string;
  readonly threads: number | null;
  readonly bundleSha256: string;
  readonly proof: Proof;
}

export type Answer = { readonly id: number } & ({ readonly value: unknown } | { readonly error: string; readonly proof?: Proof });
