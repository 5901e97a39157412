/** One row: a model in a worker of its own, asked step by step. What it does is what the C++ program's row does. */
import contract from "../../../runtimes/core/contract.json";
import type { Golden } from "../bundle.ts";
import { byCanvas } from "./canvas.ts";
import { compare, largestDifference, problemOf } from "../check.ts";
import { filesBelow } from "../files.ts";
import { EmbeddingModel } from "../model.ts";
import { readNpy, writeNpy } from "../npy.ts";
import type {
  Columns,
  EmbedAnswer,
  FinishAnswer,
  JobImage,
  PixelsAnswer,
  RoundAnswer,
  RowPlan,
  Shown,
  Step,
} from "./plan.ts";
import { clockStepNs, median } from "./statistics.ts";

const STEPS_IN_A_SAMPLE = 50; // of the clock: its step is then 2 % of a sample

export class Row {
  private embeddings: Float32Array[] = [];
  private early = new Float32Array();
  private alone = new Float32Array(); // raw embeddings of the golden tensors, one by one
  private repeats = 1; // inferences in one sample

  private constructor(
    private readonly plan: RowPlan,
    private readonly model: EmbeddingModel,
    private readonly golden: Golden,
    private readonly batch: Float32Array,
    private readonly base: URL,
    private readonly headers: Record<string, string>,
  ) {}

  /** The first step: opens the model and runs it once. */
  static async load({ plan, base, headers }: Extract<Step, { do: "load" }>, folder: URL): Promise<[Row, Columns]> {
    const root = new URL(base);
    const { runtime, quantisation, threads, precision, provider } = plan;
    const options = { runtime, quantisation, threads, precision, provider, headers };
    const model = await EmbeddingModel.open(new URL("bundle/", root), folder, options);
    const golden = await model.bundle.golden();
    const batch = new Float32Array(model.preprocess.size * plan.batch).map((_, at) => golden.tensors[at % golden.tensors.length]!);
    const row = new Row(plan, model, golden, batch, root, headers);
    const begin = performance.now();
    row.early = (await row.infer()).slice();
    const { info } = model.predictor;
    const file = model.artifact.files[0]!;
    const columns = {
      artifact: model.artifact.name,
      version: info.version,
      precision: info.precision,
      threads: info.threads,
      size_mb: file.bytes / 1e6,
      model_sha256: file.sha256,
      load_ms: model.loadMs,
      first_ms: performance.now() - begin,
      detail: info.detail,
    };
    return [row, columns];
  }

  async answer(
    step: Exclude<Step, { do: "load" }>,
  ): Promise<Columns | RoundAnswer | PixelsAnswer | EmbedAnswer | FinishAnswer> {
    switch (step.do) {
      case "pixels":
        return this.pixels();
      case "warm":
        return this.warmUp();
      case "round":
        await this.timed(contract.discarded, step.limitS);
        return { samplesNs: await this.timed(step.count, step.limitS) };
      case "golden":
        return this.judge();
      case "embed":
        return this.embed(step.images, step.begin);
      case "finish":
        return this.finish();
    }
  }

  private infer(): Promise<Float32Array> {
    return this.model.predictor.embed(this.batch, this.plan.batch);
  }

  /** Nanoseconds of single inferences; where the clock is too coarse, of the mean of several. */
  private async timed(count: number, limitS: number): Promise<number[]> {
    const samples: number[] = [];
    const begin = performance.now();
    while (samples.length < count && (samples.length === 0 || performance.now() - begin < limitS * 1000)) {
      const start = performance.now();
      for (let time = 0; time < this.repeats; ++time) await this.infer();
      samples.push(Math.round(((performance.now() - start) * 1e6) / this.repeats));
    }
    return samples;
  }

  private async warmUp(): Promise<Columns> {
    const { window, most_windows: most, seconds, steady } = contract.warm_up;
    const medians: number[] = [];
    const begin = performance.now();
    const isSteady = (): boolean => {
      const [a, b, last] = medians.slice(-3);
      return last !== undefined && [a!, b!].every((earlier) => Math.abs(last - earlier) <= steady * last);
    };
    let runs = 0;
    const step = clockStepNs();
    while (!isSteady() && medians.length < most && performance.now() - begin < seconds * 1000) {
      const samples = await this.timed(window, seconds / 3);
      medians.push(median(samples));
      runs += samples.length * this.repeats;
      const middle = Math.max(median(samples), step / STEPS_IN_A_SAMPLE);
      this.repeats = Math.max(1, Math.ceil((STEPS_IN_A_SAMPLE * step) / middle));
    }
    const columns: Columns = { warmup_runs: runs, detail: { clock_step_us: step / 1000, inferences_in_a_sample: this.repeats } };
    if (medians.length >= 3 && !isSteady()) {
      columns["warning"] = `never steady: latency still moved after ${runs} warm-up inferences`;
    }
    return columns;
  }

  private async judge(): Promise<Columns> {
    const alone = (this.alone = (await this.model.oneByOne(this.golden.tensors)) as Float32Array<ArrayBuffer>);
    const { precision } = this.model.predictor.info;
    const check = compare(alone, this.golden.embeddings, this.dim, precision, this.plan.quantisation);
    const together = await this.model.predictor.embed(this.golden.tensors, this.golden.images.length);
    return {
      golden_cosine_min: check.minCosine,
      golden_max_error: check.maxError,
      batch_max_error: largestDifference(together, alone),
      parity: problemOf(check),
    };
  }

  private get dim(): number {
    return this.model.bundle.spec.embedding_dim;
  }

  /** Of the golden images the one whose tensor, as this row makes them, is farthest from the sealed one. */
  private async pixels(): Promise<PixelsAnswer> {
    const size = this.model.preprocess.size;
    let worst = 0;
    let shown: Shown | undefined;
    for (const [index, image] of this.golden.images.entries()) {
      const tensor = await this.tensor(image);
      const error = largestDifference(tensor, this.golden.tensors.subarray(index * size, (index + 1) * size));
      if (!(error > worst)) continue;
      worst = error;
      shown = { golden: index, tensor: this.file(tensor) };
    }
    if (worst <= contract.tensor_tolerance) shown = undefined;
    return { pixel_error: this.plan.pixels === "core" ? worst : this.model.pixelError(this.golden), shown };
  }

  /** What is made of other bytes than the host's; undefined where they are no image. */
  private async foreign(bytes: Uint8Array<ArrayBuffer>, image: number): Promise<Shown | undefined> {
    try {
      return { image, tensor: this.file(await this.tensor(bytes)) };
    } catch {
      return undefined;
    }
  }

  private file(tensor: Float32Array): ArrayBuffer {
    return writeNpy({ shape: this.model.bundle.spec.input_shape, values: tensor as Float32Array<ArrayBuffer> }).buffer;
  }

  /** In batches. */
  private async embed(images: readonly JobImage[], begin: number): Promise<EmbedAnswer> {
    const bad: [number, string][] = [];
    let shown: Shown | undefined;
    const read = filesBelow(this.base, this.headers);
    const size = this.model.preprocess.size;
    for (let at = 0; at < images.length; at += this.plan.batch) {
      const part = images.slice(at, at + this.plan.batch);
      const tensors = new Float32Array(part.length * size);
      const encoded = await Promise.all(part.map((image) => read(image.path)));
      for (const [index, bytes] of encoded.entries()) {
        try {
          if (this.model.core.sha256(bytes) !== part[index]!.sha256) {
            shown ??= await this.foreign(bytes, begin + at + index);
            throw new Error("not the bytes that the host has");
          }
          tensors.set(await this.tensor(bytes), index * size);
        } catch (error) {
          bad.push([begin + at + index, error instanceof Error ? error.message : String(error)]);
        }
      }
      const rows = (await this.model.predictor.embed(tensors, part.length)).slice();
      this.model.core.normalize(rows, this.dim); // as the host compares them
      this.embeddings.push(rows);
    }
    return { bad, shown };
  }

  private async tensor(bytes: Uint8Array<ArrayBuffer>): Promise<Float32Array> {
    return this.plan.pixels === "core" ? this.model.preprocess.encoded(bytes) : byCanvas(bytes, this.model.bundle.spec);
  }

  private async finish(): Promise<FinishAnswer> {
    const columns: Columns = { repeat_max_error: largestDifference((await this.infer()).slice(), this.early) };
    if (this.plan.batch === 1) columns["stages_ms"] = await this.stages();
    columns["detail"] = { core_memory_mb: this.model.core.memory / 1e6 };
    const inputs = readNpy(await filesBelow(this.base, this.headers)("inputs.npy"), "inputs.npy");
    const random = await this.model.oneByOne(inputs.values);
    const count = this.embeddings.reduce((sum, rows) => sum + rows.length, 0) / this.dim;
    const all = new Float32Array(count * this.dim);
    this.embeddings.reduce((offset, rows) => (all.set(rows, offset), offset + rows.length), 0);
    const file = (values: Float32Array<ArrayBuffer>): ArrayBuffer =>
      writeNpy({ shape: [values.length / this.dim, this.dim], values }).buffer;
    return { columns, embeddings: file(all), inputs: file(random as Float32Array<ArrayBuffer>), golden: file(this.alone) };
  }

  /** Median ms of each stage, over as many rows to search as there are images. */
  private async stages(): Promise<Record<string, number>> {
    const rows = Math.max(this.embeddings.reduce((sum, part) => sum + part.length, 0) / this.dim, 1);
    const gallery = this.model.core.gallery(this.dim);
    gallery.add(new Float32Array(rows * this.dim).map(() => Math.random() - 0.5));
    const times = new Map<string, number[]>();
    for (let index = 0; index < contract.stage_samples; ++index) {
      const bytes = this.golden.images[index % this.golden.images.length]!;
      let last = performance.now();
      const lap = (stage: string): void => {
        const now = performance.now();
        times.set(stage, [...(times.get(stage) ?? []), now - last]);
        last = now;
      };
      const tensor = this.plan.pixels === "core" ? this.model.preprocess.steps(bytes, lap) : await this.tensor(bytes);
      if (this.plan.pixels === "canvas") lap("preprocess"); // with decoding
      const raw = await this.model.predictor.embed(tensor, 1);
      lap("inference");
      const embedding = this.model.finished(raw);
      lap("normalise");
      gallery.search(embedding, contract.neighbours);
      lap("search");
    }
    gallery.close();
    return Object.fromEntries([...times].map(([stage, taken]) => [stage, median(taken)]));
  }
}
