/** The page that a bench's link opens: does the job, shows how far it is, posts what it found. */
import { deviceFacts } from "./facts.ts";
import type { Job } from "./plan.ts";
import { run, SCHEMA, type Outcome } from "./run.ts";

const BEAT_MS = 2000;

const base = new URL("job/", location.href.replace(/#.*$/, ""));
const headers = { Authorization: `Bearer ${location.hash.slice(1)}` };
const state = { what: "asking for the job", share: 0, over: false };

function show(what: string, share: number): void {
  Object.assign(state, { what, share });
  document.querySelector("#what")!.textContent = what;
  document.querySelector("progress")!.value = share;
}

async function post(path: string, body: string | ArrayBuffer, keepalive = false): Promise<void> {
  const answer = await fetch(new URL(path, base), { method: "POST", headers, body, keepalive });
  if (!answer.ok) throw new Error(`${path}: the host answered ${answer.status}: ${await answer.text()}`);
}

function beat(): Promise<void> {
  return post("progress", JSON.stringify({ what: state.what, share: state.share, hidden: document.hidden }));
}

/** The arrays first: with the result, which is last, all is there. */
async function deliver(outcome: Outcome): Promise<void> {
  for (const [name, bytes] of outcome.arrays) await post(`arrays/${name}`, bytes);
  const { pixelError, rows, shown } = outcome;
  const machine = await deviceFacts();
  const program = document.documentElement.dataset["version"] ?? "";
  const measured = { pixel_error: pixelError, bad_images: [], thermal_log: [], rows, shown };
  const report = { schema: SCHEMA, program, machine, ...measured };
  await post("result", JSON.stringify(report));
}

async function work(): Promise<void> {
  const answer = await fetch(new URL("job.json", base), { headers });
  if (!answer.ok) throw new Error(answer.status === 401 ? "the link is not complete: open it as it was printed" : await answer.text());
  const job = (await answer.json()) as Job;
  if (job.schema !== SCHEMA) throw new Error(`the host speaks schema ${job.schema}, this page ${SCHEMA}: build both again`);
  const timer = setInterval(() => void beat().catch(() => undefined), BEAT_MS);
  addEventListener("pagehide", () => {
    if (!state.over) void post("gone", "the page was closed, or left", true).catch(() => undefined);
  });
  const awake = await navigator.wakeLock?.request("screen").catch(() => undefined);
  try {
    await deliver(await run(job, base, headers, show));
  } catch (error) {
    await post("gone", error instanceof Error ? error.message : String(error)).catch(() => undefined);
    throw error;
  } finally {
    state.over = true;
    clearInterval(timer);
    await awake?.release();
  }
}

work().then(
  () => show("Done. The figures are on the computer that gave the link; this page can be closed.", 1),
  (error: unknown) => {
    document.body.classList.add("failed");
    show(`It did not work: ${error instanceof Error ? error.message : String(error)}`, 0);
  },
);
