/** Image embeddings in the browser: the pixels, the model and the proof of a sealed bundle, in a worker.
 *
 *     import { load } from "@edgerecall/web";
 *     const model = await load("/bundle/");            // checked against its golden vectors, here
 *     const embedding = await model.embed(file);       // Float32Array, unit length where the bundle says so
 *     const gallery = model.gallery("int8");
 *     await gallery.add(embeddings);                   // Float32Array (n, dim)
 *     const { rows, similarities } = await gallery.search(embedding, 10);
 */
import type { Hits, Storage } from "./core.ts";
import type { Answer, Opened, Request } from "./messages.ts";
import { NotProven, type ModelOptions, type Proof } from "./model.ts";

export { NotProven, type Hits, type ModelOptions, type Proof, type Storage };

/** An image: a file or its bytes (JPEG, PNG), or the pixels of a canvas. */
export type ImageInput = Blob | ArrayBuffer | Uint8Array | ImageData;

/** Opens a bundle's model in a worker of its own and proves it on the golden images, on this very device.
 *
 * bundle: URL of its folder. Throws NotProven where this device does not give the sealed tensors and embeddings, Error
 * for files that cannot be read or are not those that were sealed.
 */
export async function load(bundle: string | URL, options: ModelOptions = {}): Promise<Model> {
  const root = new URL(bundle, document.baseURI);
  if (!root.pathname.endsWith("/")) root.pathname += "/";
  const channel = new Channel(new Worker(new URL("worker.js", import.meta.url), { type: "module" }));
  try {
    const opened = await channel.ask<Opened>({ do: "open", bundle: root.href, options });
    return new Model(channel, opened);
  } catch (error) {
    channel.end("the model could not be opened");
    throw error;
  }
}

/** A model that is open. Calls are answered in the order in which they were made. */
export class Model {
  private galleries = 0;

  constructor(
    private readonly channel: Channel,
    readonly info: Opened,
  ) {}

  /** float32 `(dim,)`. Throws Error for what is neither JPEG nor PNG, or damaged. */
  async embed(image: ImageInput): Promise<Float32Array> {
    const given = image instanceof Blob ? await image.arrayBuffer() : image;
    return this.channel.ask({ do: "embed", image: given instanceof ArrayBuffer ? new Uint8Array(given) : given });
  }

  /** An empty gallery beside the model, in its worker. */
  gallery(storage: Storage = "float32"): Gallery {
    return new Gallery(this.channel, this.galleries++, storage);
  }

  /** Ends the worker, and whatever it still had to answer. */
  close(): void {
    this.channel.end("the model was closed");
  }
}

/** Embeddings that are searched exactly. */
export class Gallery {
  constructor(
    private readonly channel: Channel,
    private readonly id: number,
    private readonly storage: Storage,
  ) {}

  /** Appends rows, float32 `(n, dim)`; how many there are now. */
  add(rows: Float32Array): Promise<number> {
    return this.channel.ask({ do: "add", gallery: this.id, rows, storage: this.storage });
  }

  /** The nearest k, best first. */
  search(query: Float32Array, k = 10): Promise<Hits> {
    return this.channel.ask({ do: "search", gallery: this.id, query, k });
  }
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** Requests to the worker, and who waits for their answers. */
class Channel {
  private readonly waiting = new Map<number, Waiting>();
  private next = 0;
  private ended: string | undefined;

  constructor(private readonly worker: Worker) {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const { resolve, reject } = this.waiting.get(data.id)!;
      this.waiting.delete(data.id);
      if ("value" in data) resolve(data.value);
      else reject(data.proof ? new NotProven(data.proof) : new Error(data.error));
    };
    worker.onerror = (event) => this.end(event.message || "the model's worker could not be started");
  }

  ask<Value>(request: Request): Promise<Value> {
    if (this.ended !== undefined) return Promise.reject(new Error(this.ended));
    const id = this.next++;
    return new Promise<Value>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.worker.postMessage({ id, request });
    });
  }

  end(reason: string): void {
    this.ended ??= reason;
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(new Error(reason));
    this.waiting.clear();
  }
}
