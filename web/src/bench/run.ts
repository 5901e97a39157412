/** All rows of a job, timed in turns, each in a worker of its own; and what is posted of them. */
import contract from "../../../runtimes/core/contract.json";
import type { Columns, EmbedAnswer, FinishAnswer, Job, PixelsAnswer, RoundAnswer, RowPlan, Shown, Step } from "./plan.ts";
import { median, percentile } from "./statistics.ts";

const PART = 8; // batches that are embedded in one step
const SLOWED = 1.15; // the last round's median against the fastest's: throttled, or disturbed

export type Say = (what: string, share: number) => void;

export interface Outcome {
  readonly pixelError: number | null; // null where no row could tell
  readonly rows: readonly Columns[];
  readonly shown: readonly { readonly row: number; readonly golden?: number; readonly image?: number }[];
  readonly arrays: ReadonlyMap<string, ArrayBuffer>; // row-N.npy and row-N-KIND.npy
}

/** A row while it is measured: its columns so far, and its worker while that answers. */
class RowRunner {
  readonly columns: Columns;
  arrays: FinishAnswer | undefined;
  shown: Shown | undefined; // what differs: of an image whose bytes are others, else of a golden image
  private worker: Worker | undefined;
  private samples: number[] = [];
  private medians: number[] = [];

  constructor(
    readonly plan: RowPlan,
    script: URL,
    private readonly timeoutS: number,
  ) {
    this.worker = new Worker(script, { type: "module" });
    this.columns = {
      runtime: plan.runtime,
      name: plan.name,
      quantisation: plan.quantisation,
      requested_precision: plan.precision,
      requested_threads: plan.threads,
      batch: plan.batch,
      status: "ok",
      reason: null,
      warnings: [],
    };
  }

  get alive(): boolean {
    return this.worker !== undefined;
  }

  /** A step's answer; undefined where the row has ended, now or before. */
  async step<Answer>(step: Step): Promise<Answer | undefined> {
    const worker = this.worker;
    if (!worker) return undefined;
    try {
      return await ask<Answer>(worker, step, this.timeoutS);
    } catch (error) {
      this.end("failed", `${this.plan.runtime}: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  }

  /** A step whose answer is columns; a warning and what is wrong go where they belong. */
  async fill(step: Step): Promise<void> {
    this.take((await this.step<Columns>(step)) ?? {});
  }

  take({ warning, parity, detail, ...columns }: Columns): void {
    Object.assign(this.columns, columns);
    if (detail) this.columns["detail"] = { ...(this.columns["detail"] as object), ...(detail as object) };
    if (typeof warning === "string") this.warn(warning);
    if (typeof parity === "string") this.complain(parity);
  }

  async time(count: number, limitS: number): Promise<void> {
    const answer = await this.step<RoundAnswer>({ do: "round", count, limitS });
    if (!answer) return;
    this.samples.push(...answer.samplesNs);
    this.medians.push(median(answer.samplesNs));
  }

  async finish(): Promise<void> {
    this.arrays = await this.step<FinishAnswer>({ do: "finish" });
    if (this.arrays) this.take(this.arrays.columns);
    this.worker?.terminate();
    if (this.samples.length === 0) return;
    const middle = median(this.samples);
    const sum = this.samples.reduce((all, sample) => all + sample, 0);
    Object.assign(this.columns, {
      latency_p50_ms: middle / 1e6,
      latency_p90_ms: percentile(this.samples, 0.9) / 1e6,
      latency_p99_ms: percentile(this.samples, 0.99) / 1e6,
      latency_mad_ms: median(this.samples.map((sample) => Math.abs(sample - middle))) / 1e6,
      images_per_s: (this.plan.batch * this.samples.length) / (sum / 1e9),
      samples_ns: this.samples,
      round_medians_ns: this.medians,
    });
    const threads = this.columns["threads"];
    if (threads !== this.plan.threads) {
      this.warn(`asked for ${this.plan.threads} threads, runs ${String(threads)}: a page has them only where it is isolated`);
    }
    const slowest = Math.max(...this.medians.slice(-2));
    if (this.medians.length > 2 && Math.min(...this.medians.slice(-2)) > SLOWED * Math.min(...this.medians)) {
      const [from, to] = [Math.min(...this.medians), slowest].map((ns) => (ns / 1e6).toFixed(2));
      this.warn(`slowed down from ${from} to ${to} ms while timing: throttled, or disturbed`);
    }
  }

  private warn(text: string): void {
    (this.columns["warnings"] as string[]).push(text);
  }

  private complain(text: string): void {
    if (this.columns["status"] === "ok") Object.assign(this.columns, { status: "parity", reason: text });
  }

  end(status: string, reason: string): void {
    Object.assign(this.columns, { status, reason });
    this.worker?.terminate();
    this.worker = undefined;
  }
}

/** One step in a worker. Throws Error for its failure, its end, and its silence. */
function ask<Answer>(worker: Worker, step: Step, timeoutS: number): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no answer within ${timeoutS} s`)), timeoutS * 1000);
    const settle = (work: () => void) => {
      clearTimeout(timer);
      work();
    };
    worker.onmessage = ({ data }: MessageEvent<{ value?: Answer; error?: string }>) =>
      settle(() => (data.error === undefined ? resolve(data.value as Answer) : reject(new Error(data.error))));
    worker.onerror = (event) => settle(() => reject(new Error(`its worker ended: ${event.message || "no reason given"}`)));
    worker.postMessage(step);
  });
}

/** base: URL of the job's folder, with which every request goes along with `headers`. */
export async function run(job: Job, base: URL, headers: Record<string, string>, say: Say): Promise<Outcome> {
  const outcome = { rows: [] as Columns[], shown: [] as Outcome["shown"][number][], arrays: new Map<string, ArrayBuffer>() };
  let pixelError: number | null = null;
  for (let begin = 0; begin < job.rows.length; begin += job.together) {
    const plans = job.rows.slice(begin, begin + job.together);
    const part = (what: string, share: number): void => say(what, (begin + share * plans.length) / job.rows.length);
    const group = new Group(job, plans, base, headers, part);
    pixelError = (await group.measure()) ?? pixelError;
    for (const { columns, arrays, shown } of group.runners) {
      const index = outcome.rows.push(columns) - 1;
      if (shown) {
        const { tensor, ...which } = shown;
        outcome.shown.push({ row: index, ...which });
        outcome.arrays.set(`row-${index}-tensor.npy`, tensor);
      }
      if (!arrays) continue;
      outcome.arrays.set(`row-${index}.npy`, arrays.embeddings);
      outcome.arrays.set(`row-${index}-inputs.npy`, arrays.inputs);
      outcome.arrays.set(`row-${index}-golden.npy`, arrays.golden);
    }
  }
  return { ...outcome, pixelError };
}

/** Rows that are timed in turns. */
class Group {
  readonly runners: readonly RowRunner[];

  constructor(
    private readonly job: Job,
    plans: readonly RowPlan[],
    private readonly base: URL,
    private readonly headers: Record<string, string>,
    private readonly say: Say,
  ) {
    const script = new URL("row_worker.js", import.meta.url);
    this.runners = plans.map((plan) => new RowRunner(plan, script, job.timeout_s));
  }

  /** All steps; how far the pixels are off, null where no row could tell. */
  async measure(): Promise<number | null> {
    const { rounds, samples, seconds } = this.job;
    const [base, headers] = [this.base.href, this.headers];
    await this.each("loading", 0, (runner) => runner.fill({ do: "load", plan: runner.plan, base, headers }));
    await this.each("warming up", 0.1, (runner) => runner.fill({ do: "warm" }));
    for (let round = 0; round < rounds; ++round) {
      const count = Math.floor((samples * (round + 1)) / rounds) - Math.floor((samples * round) / rounds);
      await this.each(`round ${round + 1} of ${rounds},`, 0.2 + (0.3 * round) / rounds, (runner) =>
        runner.time(count, seconds / rounds),
      );
    }
    await this.each("golden images,", 0.5, (runner) => runner.fill({ do: "golden" }));
    let pixelError: number | null = null;
    await this.each("pixels,", 0.5, async (runner) => {
      const answer = await runner.step<PixelsAnswer>({ do: "pixels" });
      pixelError ??= answer?.pixel_error ?? null;
      runner.shown = answer?.shown;
    });
    for (const [index, runner] of this.runners.entries()) await this.embed(index, runner);
    await this.each("finishing", 0.9, (runner) => runner.finish());
    return pixelError;
  }

  private async each(what: string, share: number, work: (runner: RowRunner) => Promise<unknown>): Promise<void> {
    for (const runner of this.runners) {
      this.say(`${what} ${runner.plan.name}`, share);
      await work(runner);
    }
  }

  /** A row that cannot read an image fails: what the image is in its gallery would be nothing. */
  private async embed(index: number, runner: RowRunner): Promise<void> {
    const { images } = this.job;
    const part = PART * runner.plan.batch;
    const bad: EmbedAnswer["bad"][number][] = [];
    let first: (typeof bad)[number] | undefined;
    for (let begin = 0; begin < images.length && runner.alive; begin += part) {
      this.say(`embedding images, ${runner.plan.name}`, 0.5 + (0.4 * (index + begin / images.length)) / this.runners.length);
      const answer = await runner.step<EmbedAnswer>({ do: "embed", begin, images: images.slice(begin, begin + part) });
      bad.push(...(answer?.bad ?? []));
      if (first === undefined && answer?.shown) runner.shown = answer.shown; // it is what the row fails by
      first ??= bad[0];
    }
    if (first) runner.end("failed", `${bad.length} images cannot be read there, the first: number ${first[0]}: ${first[1]}`);
  }
}

export const SCHEMA = contract.row_schema;
