/** What the host asks of a page, and what goes between the page and its rows' workers. */
import type { Provider } from "../predictor.ts";

export interface RowPlan {
  readonly runtime: string;
  readonly pixels: "core" | "canvas"; // who makes tensors of images
  readonly provider: Provider;
  readonly name: string;
  readonly quantisation: string;
  readonly precision: string;
  readonly threads: number;
  readonly batch: number;
}

/** An image by its path below the job's; its hash as the host's rows have seen it. */
export interface JobImage {
  readonly path: string;
  readonly sha256: string;
}

/** The job as the host gives it. */
export interface Job {
  readonly schema: number;
  readonly images: readonly JobImage[];
  readonly rows: readonly RowPlan[];
  readonly together: number; // rows that are open, and timed in turns, at a time
  readonly samples: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly timeout_s: number;
}

/** Columns of a row, as bench/schema/rows.py names them. */
export type Columns = Record<string, unknown>;

export type Step =
  | { readonly do: "load"; readonly plan: RowPlan; readonly base: string; readonly headers: Record<string, string> }
  | { readonly do: "pixels" }
  | { readonly do: "warm" }
  | { readonly do: "round"; readonly count: number; readonly limitS: number }
  | { readonly do: "golden" }
  | { readonly do: "embed"; readonly images: readonly JobImage[]; readonly begin: number }
  | { readonly do: "finish" };

export interface RoundAnswer {
  readonly samplesNs: number[];
}

/** What was made of an image that differs from what the host has: by it the host finds out why. */
export interface Shown {
  readonly golden?: number; // the golden image's index
  readonly image?: number; // or the job's image's
  readonly tensor: ArrayBuffer; // a .npy file, (3, H, W)
}

export interface PixelsAnswer {
  readonly pixel_error: number; // the core's, against the sealed tensors
  readonly shown: Shown | undefined; // where this row's own tensors are not those
}

export interface EmbedAnswer {
  readonly bad: readonly (readonly [number, string])[];
  readonly shown: Shown | undefined; // the first image whose bytes are others
}

export interface FinishAnswer {
  readonly columns: Columns;
  readonly embeddings: ArrayBuffer; // a .npy file
  readonly inputs: ArrayBuffer;
  readonly golden: ArrayBuffer; // raw embeddings of the sealed tensors
}
