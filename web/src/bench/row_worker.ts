/** The worker of one row: steps in, answers out, one at a time. */
import { Row } from "./row.ts";
import type { Step } from "./plan.ts";

const folder = new URL(".", import.meta.url);
let row: Row | undefined;

async function answer(step: Step): Promise<unknown> {
  if (step.do === "load") {
    const [loaded, columns] = await Row.load(step, folder);
    row = loaded;
    return columns;
  }
  if (!row) throw new Error("no model is open");
  return row.answer(step);
}

addEventListener("message", (event: MessageEvent<Step>) => {
  void answer(event.data).then(
    (value) => postMessage({ value }),
    (error: unknown) => postMessage({ error: error instanceof Error ? error.message : String(error) }),
  );
});
