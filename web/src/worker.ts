/** The worker that holds a model and its galleries: requests in, answers out, one at a time. */
import type { Gallery, Hits } from "./core.ts";
import type { Answer, Opened, Request } from "./messages.ts";
import { EmbeddingModel, NotProven } from "./model.ts";

const folder = new URL(".", import.meta.url);
const galleries = new Map<number, Gallery>();
let model: EmbeddingModel | undefined;
let turn: Promise<unknown> = Promise.resolve();

async function open({ bundle, options }: Extract<Request, { do: "open" }>): Promise<Opened> {
  model = await EmbeddingModel.open(new URL(bundle), folder, options);
  const proof = await model.prove();
  if (proof.problem !== undefined) throw new NotProven(proof);
  const { version, threads } = model.predictor.info;
  const { bundle: sealed, artifact } = model;
  const dim = sealed.spec.embedding_dim;
  return { dim, runtime: artifact.runtime, version, threads, bundleSha256: sealed.sha256, proof };
}

async function answer(request: Request): Promise<unknown> {
  if (request.do === "open") return open(request);
  if (!model) throw new Error("no model is open");
  if (request.do === "embed") return model.embed(request.image);
  let gallery = galleries.get(request.gallery);
  if (request.do === "add") {
    gallery ??= model.core.gallery(model.bundle.spec.embedding_dim, request.storage);
    galleries.set(request.gallery, gallery);
    gallery.add(request.rows);
    return gallery.size;
  }
  return gallery?.search(request.query, request.k) ?? ({ rows: new Int32Array(), similarities: new Float32Array() } satisfies Hits);
}

addEventListener("message", ({ data: { id, request } }: MessageEvent<{ id: number; request: Request }>) => {
  turn = turn.then(async () => {
    let told: Answer;
    try {
      told = { id, value: await answer(request) };
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      told = error instanceof NotProven ? { id, error: message, proof: error.proof } : { id, error: message };
    }
    postMessage(told);
  });
});
