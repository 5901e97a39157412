/** All rows of a job, timed in turns, each in a worker of its own; and what is posted of them. */
import contract from "../../../runtimes/core/contract.json";
import type { Columns, EmbedAnswer, FinishAnswer, Job, RoundAnswer, RowPlan, Step } from "./plan.ts";
import { median, percentile } from "./statistics.ts";

const PART = 8; // batches that are embedded in one step
const SLOWED = 1.15; // the last round's median against the fastest's: throttled, or disturbed

export type Say = (what: string, share: number) => void;

export interface Outcome {
  readonly pixelError: number;
  readonly bad: readonly (readonly [number, string])[];
  readonly rows: readonly Columns[];
  readonly arrays: ReadonlyMap<string, ArrayBuffer>;
}

/** A row while it is measured: its columns so far, and its worker while that answers. */
class RowRunner {
  readonly columns: Columns;
  arrays: FinishAnswer | undefined;
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

  private end(status: string, reason: string): void {
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
  const script = new URL("row_worker.js", import.meta.url);
  const runners = job.rows.map((plan) => new RowRunner(plan, script, job.timeout_s));
  const each = async (what: string, share: number, work: (runner: RowRunner) => Promise<unknown>): Promise<void> => {
    for (const runner of runners) {
      say(`${what} ${runner.plan.name}`, share);
      await work(runner);
    }
  };
  await each("loading", 0, (runner) => runner.fill({ do: "load", plan: runner.plan, base: base.href, headers }));
  await each("warming up", 0.1, (runner) => runner.fill({ do: "warm" }));
  for (let round = 0; round < job.rounds; ++round) {
    const share = Math.floor((job.samples * (round + 1)) / job.rounds) - Math.floor((job.samples * round) / job.rounds);
    await each(`round ${round + 1} of ${job.rounds},`, 0.2 + (0.3 * round) / job.rounds, (runner) =>
      runner.time(share, job.seconds / job.rounds),
    );
  }
  await each("golden images,", 0.5, (runner) => runner.fill({ do: "golden" }));
  let pixelError = 0; // where no row could tell, each says why
  let bad: EmbedAnswer["bad"] = [];
  const first = runners.find((runner) => runner.alive);
  if (first) pixelError = (await first.step<{ pixel_error: number }>({ do: "pixels" }))?.pixel_error ?? 0;
  for (const [index, runner] of runners.entries()) {
    const part = PART * runner.plan.batch;
    const found: EmbedAnswer["bad"][number][] = [];
    for (let begin = 0; begin < job.images.length && runner.alive; begin += part) {
      say(`embedding images, ${runner.plan.name}`, 0.5 + (0.4 * (index + begin / job.images.length)) / runners.length);
      const answer = await runner.step<EmbedAnswer>({ do: "embed", begin, images: job.images.slice(begin, begin + part) });
      found.push(...(answer?.bad ?? []));
    }
    if (runner.alive) bad = found; // the same for every row
  }
  await each("finishing", 0.9, (runner) => runner.finish());
  const arrays = new Map<string, ArrayBuffer>();
  for (const [index, { arrays: made }] of runners.entries()) {
    if (!made) continue;
    arrays.set(`row-${index}.npy`, made.embeddings);
    arrays.set(`row-${index}-inputs.npy`, made.inputs);
  }
  return { pixelError, bad, rows: runners.map((runner) => runner.columns), arrays };
}

export const SCHEMA = contract.row_schema;
