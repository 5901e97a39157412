/** What the page of `edgerecall web` asks: the model and the gallery that lie beside it, in this very browser. */
import { load, type Gallery, type Model, type Storage } from "../index.ts";
import { filesBelow } from "../files.ts";
import { readNpy } from "../npy.ts";

interface Rows {
  readonly ids: readonly string[];
  readonly labels: readonly string[];
  readonly pictures: boolean;
  readonly quantisation: string; // of the model that lies here
  readonly storage?: Storage;
}

interface Open {
  readonly model: Model;
  readonly gallery: Gallery;
  readonly rows: Rows;
}

export interface Found {
  readonly ids: readonly string[];
  readonly labels: readonly string[];
  readonly scores: readonly number[];
}

const here = new URL("../", import.meta.url);
let opening: Promise<Open> | undefined;

async function open(): Promise<Open> {
  const threads = globalThis.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 4) : 1;
  const read = filesBelow(new URL("gallery/", here));
  const rows = JSON.parse(new TextDecoder().decode(await read("rows.json"))) as Rows;
  const options = { threads, quantisation: rows.quantisation };
  const [model, file] = await Promise.all([load(new URL("bundle/", here), options), read("rows.npy")]);
  const { values } = readNpy(file, "rows.npy");
  if (values.length !== rows.ids.length * model.info.dim) throw new Error("the gallery's rows and names do not fit together");
  const gallery = model.gallery(rows.storage);
  await gallery.add(values);
  return { model, gallery, rows };
}

/** The model, opened and proven once. */
function opened(): Promise<Open> {
  opening ??= open().catch((error: unknown) => {
    opening = undefined; // the next question tries again
    throw error;
  });
  return opening;
}

/** What answers, in words, and that it has a gallery. */
export async function about(): Promise<{ text: string; gallery: boolean }> {
  const { model, rows } = await opened();
  const { runtime, version, threads, proof } = model.info;
  const where = `${runtime} ${version}, ${threads} thread${threads === 1 ? "" : "s"}, in this browser`;
  return { text: `${where}: pixels equal, cosine ${proof.minCosine.toFixed(6)}; ${rows.ids.length} rows`, gallery: true };
}

/** The nearest k of a picture. */
export async function ask(picture: Blob, _gallery: boolean, k: number): Promise<Found> {
  const { model, gallery, rows } = await opened();
  const hits = await gallery.search(await model.embed(picture), k);
  const places = Array.from(hits.rows);
  return {
    ids: places.map((row) => rows.ids[row]!),
    labels: places.map((row) => rows.labels[row]!),
    scores: Array.from(hits.similarities),
  };
}

/** The picture of a row; null where there is none. */
export async function pictureOf(id: string): Promise<Blob | null> {
  const { rows } = await opened();
  if (!rows.pictures) return null;
  const answer = await fetch(new URL(`pictures/${rows.ids.indexOf(id)}.jpg`, here)).catch(() => null);
  return answer?.ok ? answer.blob() : null;
}

/** There is no server that asks for one. */
export function setToken(): void {}

// Installed, the page works offline, and is isolated wherever it lies: with threads, and a fine clock.
if ("serviceWorker" in navigator) {
  const worker = navigator.serviceWorker;
  const first = worker.controller === null;
  let asked = false; // a picture is on its way: the page stays as it is until it is opened again
  for (const event of ["change", "drop", "paste"]) addEventListener(event, () => (asked = true), { capture: true });
  worker.addEventListener("controllerchange", () => {
    if (first && !asked && !globalThis.crossOriginIsolated) location.reload();
  });
  void worker.register(new URL("sw.js", here), { updateViaCache: "none" });
}
