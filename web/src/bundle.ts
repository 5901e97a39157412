/** A sealed bundle behind a URL: its manifest, its files, whose hashes are checked, and its golden vectors. */
import contract from "../../runtimes/core/contract.json";
import type { Core } from "./core.ts";
import type { ReadFile } from "./files.ts";
import { readNpy } from "./npy.ts";

export interface BundleFile {
  readonly role: string;
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
}

export interface Artifact {
  readonly name: string;
  readonly runtime: string;
  readonly quantisation: string;
  readonly files: readonly BundleFile[];
}

export interface Spec {
  readonly input_name: string;
  readonly input_shape: readonly [number, number, number];
  readonly embedding_dim: number;
  readonly normalize_embedding: boolean;
  readonly preprocess: object;
}

interface Manifest {
  readonly format_version: number;
  readonly spec: Spec;
  readonly artifacts: readonly Artifact[];
  readonly golden: readonly BundleFile[];
}

/** Golden images, with the tensors `(n, 3, H, W)` and raw embeddings `(n, dim)` that the training framework made. */
export interface Golden {
  readonly images: readonly Uint8Array<ArrayBuffer>[];
  readonly tensors: Float32Array;
  readonly embeddings: Float32Array;
}

const MANIFEST = "bundle.json";

export class Bundle {
  private constructor(
    private readonly core: Core,
    private readonly read: ReadFile,
    private readonly manifest: Manifest,
    readonly sha256: string,
  ) {}

  /** Throws CoreError for a manifest that the core refuses, Error for one of format 1. */
  static async open(core: Core, read: ReadFile): Promise<Bundle> {
    const bytes = await read(MANIFEST);
    if (bytes.length > contract.manifest_bytes) throw new Error(`${MANIFEST}: larger than ${contract.manifest_bytes} bytes`);
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    core.checkManifest(text, MANIFEST);
    const manifest = JSON.parse(text) as Manifest;
    if (manifest.format_version !== contract.bundle_format) {
      throw new Error(`${MANIFEST}: of format ${manifest.format_version}: run 'edgerecall upgrade'`);
    }
    return new Bundle(core, read, manifest, core.sha256(bytes));
  }

  get spec(): Spec {
    return this.manifest.spec;
  }

  /** bundle.json's `preprocess`, for the core. */
  get preprocess(): string {
    return JSON.stringify(this.spec.preprocess);
  }

  /** A runtime's artifact: of a quantisation where one is given, else the fp32 one, else the first. */
  artifact(runtime: string, quantisation?: string): Artifact {
    const mine = this.manifest.artifacts.filter((one) => one.runtime === runtime);
    const found = mine.find((one) => one.quantisation === (quantisation ?? "fp32")) ?? (quantisation ? undefined : mine[0]);
    if (found) return found;
    const there = mine.map((one) => one.quantisation).join(", ") || "none";
    throw new Error(`the bundle has no ${quantisation ?? ""} artifact for ${runtime} (it has ${there})`);
  }

  /** A file's bytes. Throws Error when they are not those that were sealed. */
  async file(file: BundleFile): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = await this.read(file.path);
    if (bytes.length !== file.bytes || this.core.sha256(bytes) !== file.sha256) {
      throw new Error(`${file.path}: not the file that was sealed: its size or SHA-256 differs`);
    }
    return bytes;
  }

  async golden(): Promise<Golden> {
    const { input_shape: shape, embedding_dim: dim } = this.spec;
    const images: Uint8Array<ArrayBuffer>[] = [];
    const vectors = new Map<string, Float32Array>();
    for (const file of this.manifest.golden) {
      const bytes = await this.file(file);
      if (file.path.endsWith(".npy")) vectors.set(file.path.replace(/^.*\/|\.npy$/g, ""), readNpy(bytes, file.path).values);
      else images.push(bytes);
    }
    const take = (name: string, each: number): Float32Array => {
      const values = vectors.get(name);
      if (values?.length === images.length * each && values.every(Number.isFinite)) return values;
      throw new Error(`golden/${name}.npy: expected ${images.length} rows of ${each} finite numbers`);
    };
    const size = shape.reduce((product, side) => product * side, 1);
    return { images, tensors: take("tensors", size), embeddings: take("embeddings", dim) };
  }
}
