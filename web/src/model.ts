/** A bundle's model, from image to embedding, in the thread that opens it. */
import contract from "../../runtimes/core/contract.json";
import { Bundle, type Artifact, type Golden } from "./bundle.ts";
import { compare, largestDifference, problemOf } from "./check.ts";
import { Core, type Preprocess } from "./core.ts";
import { filesBelow } from "./files.ts";
import { openOnnxRuntime } from "./onnxruntime.ts";
import type { OpenPredictor, Predictor, Provider } from "./predictor.ts";

/** The runtimes there are, by the name that their artifacts have in a bundle. */
export const RUNTIMES: Readonly<Record<string, OpenPredictor>> = { onnxruntime: openOnnxRuntime };

/** Where a model comes from and how it runs. */
export interface ModelOptions {
  readonly runtime?: string;
  readonly quantisation?: string;
  readonly threads?: number;
  readonly provider?: Provider; // by default "wasm"
  readonly precision?: string; // execution precision that is asked for
  readonly headers?: Record<string, string>; // of every request for the bundle's files
}

/** What `verify` found on this device, over the golden images. */
export interface Proof {
  readonly pixelError: number; // against the sealed tensors
  readonly minCosine: number; // against the sealed embeddings
  readonly maxError: number;
  readonly problem: string | undefined; // one line where it does not hold
}

/** Thrown where this device does not give the sealed tensors or embeddings. */
export class NotProven extends Error {
  constructor(readonly proof: Proof) {
    super(proof.problem);
    this.name = "NotProven";
  }
}

export class EmbeddingModel {
  private constructor(
    readonly core: Core,
    readonly bundle: Bundle,
    readonly artifact: Artifact,
    readonly predictor: Predictor,
    readonly preprocess: Preprocess,
    readonly loadMs: number,
  ) {}

  /** Opens a model; its files' hashes are checked, its golden vectors not yet. bundle: URL of its folder, ending in "/".
   * folder: of this package's files.
   */
  static async open(bundle: URL, folder: URL, options: ModelOptions): Promise<EmbeddingModel> {
    const { runtime = "onnxruntime", threads = 1, precision = "fp32", provider = "wasm" } = options;
    const open = RUNTIMES[runtime];
    if (!open) throw new Error(`runtime: expected one of ${Object.keys(RUNTIMES).join(", ")}, got '${runtime}'`);
    const core = await Core.load(folder);
    const sealed = await Bundle.open(core, filesBelow(bundle, options.headers));
    const artifact = sealed.artifact(runtime, options.quantisation);
    const file = artifact.files.find((one) => one.role === "model");
    if (!file || artifact.files.length !== 1) throw new Error(`${artifact.name}: expected one file, the model`);
    const bytes = await sealed.file(file);
    const begin = performance.now();
    const predictor = await open(bytes, artifact, sealed.spec, { provider, threads, precision }, folder);
    const loadMs = performance.now() - begin;
    const preprocess = core.preprocess(sealed.preprocess, sealed.spec.input_shape);
    return new EmbeddingModel(core, sealed, artifact, predictor, preprocess, loadMs);
  }

  /** An image's embedding: encoded JPEG or PNG, or pixels of a canvas. */
  async embed(image: Uint8Array | ImageData): Promise<Float32Array> {
    const tensor = image instanceof Uint8Array ? this.preprocess.encoded(image) : this.preprocess.pixels(image);
    return this.finished(await this.predictor.embed(tensor, 1));
  }

  /** Raw embeddings as the bundle compares them: a copy, to unit length where it says so. */
  finished(raw: Float32Array): Float32Array {
    const embedding = raw.slice();
    const { normalize_embedding: unit, embedding_dim: dim } = this.bundle.spec;
    if (unit) this.core.normalize(embedding, dim);
    return embedding;
  }

  /** Raw embeddings of tensors, one at a time. */
  async oneByOne(tensors: Float32Array): Promise<Float32Array> {
    const [size, dim] = [this.preprocess.size, this.bundle.spec.embedding_dim];
    const all = new Float32Array((tensors.length / size) * dim);
    for (let index = 0; index * size < tensors.length; ++index) {
      all.set(await this.predictor.embed(tensors.subarray(index * size, (index + 1) * size), 1), index * dim);
    }
    return all;
  }

  /** The largest |difference| between this device's tensors of the golden images and the sealed ones. */
  pixelError({ images, tensors }: Golden): number {
    const size = this.preprocess.size;
    return Math.max(
      ...images.map((image, index) =>
        largestDifference(this.preprocess.encoded(image), tensors.subarray(index * size, (index + 1) * size)),
      ),
    );
  }

  /** The golden images through preprocessing and model, on this device. */
  async prove(): Promise<Proof> {
    const golden = await this.bundle.golden();
    const pixelError = this.pixelError(golden);
    const { precision } = this.predictor.info;
    const dim = this.bundle.spec.embedding_dim;
    const output = await this.oneByOne(golden.tensors);
    const check = compare(output, golden.embeddings, dim, precision, this.artifact.quantisation);
    const pixels =
      pixelError <= contract.tensor_tolerance
        ? undefined
        : `preprocessing differs from the sealed tensors: max error ${pixelError.toExponential(2)}`;
    return { pixelError, minCosine: check.minCosine, maxError: check.maxError, problem: pixels ?? problemOf(check) };
  }

  async close(): Promise<void> {
    this.preprocess.close();
    await this.predictor.close();
  }
}
