/** The C++ core as WebAssembly (cpp/web/exports.cpp): images to tensors, exact search, SHA-256, the manifest's check. */

export const MAX_PIXELS = 89_478_485; // as everywhere else in EdgeRecall
const HASHED = 1 << 20; // bytes at a time
const STORAGES = ["float32", "float16", "int8", "binary"] as const;
const FAILURES: Record<number, string> = { [-2]: "unsupported", [-3]: "memory", [-4]: "failed" };

/** What the core refuses. kind: "input" damaged or senseless, "unsupported" neither JPEG nor PNG, "memory", "failed". */
export class CoreError extends Error {
  constructor(
    message: string,
    readonly kind: string,
  ) {
    super(message);
    this.name = "CoreError";
  }
}

interface Module {
  HEAPU8: Uint8Array<ArrayBuffer>;
  UTF8ToString(address: number): string;
  _malloc(bytes: number): number;
  _free(address: number): void;
  _er_error(): number;
  _er_check_manifest(text: number, where: number): number;
  _er_sha256_add(data: number, size: number): number;
  _er_sha256_finish(): number;
  _er_preprocess_open(json: number): number;
  _er_preprocess_close(preprocess: number): void;
  _er_preprocess_encoded(preprocess: number, data: number, size: number, most: number, out: number): number;
  _er_preprocess_rgba(p: number, rgba: number, height: number, width: number, most: number, out: number): number;
  _er_decode(preprocess: number, data: number, size: number, most: number): number;
  _er_image_close(image: number): void;
  _er_preprocess_image(preprocess: number, image: number, most: number, out: number): number;
  _er_normalize(rows: number, count: number, dim: number): void;
  _er_gallery_open(dim: number, storage: number): number;
  _er_gallery_close(gallery: number): void;
  _er_gallery_add(gallery: number, rows: number, count: number): number;
  _er_gallery_size(gallery: number): number;
  _er_gallery_search(g: number, queries: number, count: number, k: number, rows: number, scores: number): number;
}

/** How a gallery keeps its embeddings. */
export type Storage = (typeof STORAGES)[number];

type Given = Uint8Array | Uint8ClampedArray | Float32Array;

/** One instance of the core. It has one thread and one memory: whoever shares it waits for its turn. */
export class Core {
  private constructor(private readonly module: Module) {}

  /** folder: where `edgerecall.js` and `edgerecall.wasm` are. */
  static async load(folder: URL): Promise<Core> {
    const made = (await import(/* @vite-ignore */ new URL("edgerecall.js", folder).href)) as {
      default(settings: object): Promise<Module>;
    };
    return new Core(await made.default({ locateFile: (name: string) => new URL(name, folder).href }));
  }

  /** Bytes that the core has taken from the system. */
  get memory(): number {
    return this.module.HEAPU8.length;
  }

  /** Throws CoreError for a bundle.json that the other EdgeRecall programs refuse too. */
  checkManifest(text: string, where: string): void {
    this.lent([cString(text), cString(where)], (manifest, name) =>
      this.checked(this.module._er_check_manifest(manifest!, name!)),
    );
  }

  /** SHA-256, hexadecimal; in every context, also where pages have no SubtleCrypto. */
  sha256(bytes: Uint8Array): string {
    for (let at = 0; at < bytes.length; at += HASHED) {
      const part = bytes.subarray(at, at + HASHED); // the core's memory never shrinks
      this.lent([part], (data) => this.checked(this.module._er_sha256_add(data!, part.length)));
    }
    this.checked(this.module._er_sha256_finish());
    return this.module.UTF8ToString(this.module._er_error());
  }

  /** json: bundle.json's `preprocess`; shape: of the tensor, `(3, H, W)`. */
  preprocess(json: string, shape: readonly number[]): Preprocess {
    const handle = this.lent([cString(json)], (text) => this.opened(this.module._er_preprocess_open(text!)));
    return new Preprocess(this, this.module, handle, shape.reduce((product, side) => product * side, 1));
  }

  /** Rows of a length to unit length, in place. */
  normalize(rows: Float32Array, dim: number): void {
    this.lent([rows], (data) => {
      this.module._er_normalize(data!, rows.length / dim, dim);
      rows.set(this.floats(data!, rows.length));
    });
  }

  /** A gallery in memory, searched exactly. */
  gallery(dim: number, storage: Storage = "float32"): Gallery {
    const number = STORAGES.indexOf(storage);
    if (number < 0) throw new CoreError(`storage: expected one of ${STORAGES.join(", ")}, got '${storage}'`, "input");
    const handle = this.opened(this.module._er_gallery_open(dim, number));
    return new Gallery(this, this.module, handle, dim);
  }

  /** Numbers in the core's memory, until its next call. */
  floats(address: number, count: number): Float32Array {
    return new Float32Array(this.module.HEAPU8.buffer, address, count);
  }

  checked(code: number): void {
    if (code < 0) throw new CoreError(this.module.UTF8ToString(this.module._er_error()), FAILURES[code] ?? "input");
  }

  opened(handle: number): number {
    if (handle === 0) this.checked(-1);
    return handle;
  }

  /** Room in the core's memory while `work` runs. */
  room<Result>(bytes: number, work: (address: number) => Result): Result {
    const address = this.module._malloc(Math.max(bytes, 1));
    if (address === 0) throw new CoreError(`out of memory: ${bytes} bytes`, "memory");
    try {
      return work(address);
    } finally {
      this.module._free(address);
    }
  }

  /** Copies of arrays in the core's memory while `work` runs. */
  lent<Result>(arrays: readonly Given[], work: (...addresses: number[]) => Result, got: number[] = []): Result {
    const next = arrays[got.length];
    if (next === undefined) return work(...got);
    return this.room(next.byteLength, (address) => {
      this.module.HEAPU8.set(new Uint8Array(next.buffer, next.byteOffset, next.byteLength), address);
      return this.lent(arrays, work, [...got, address]);
    });
  }
}

function cString(text: string): Uint8Array {
  if (text.includes("\0")) throw new CoreError("expected text without a NUL character", "input");
  return new TextEncoder().encode(text + "\0");
}

/** A spec's preprocessing: the pixels that the model was trained on, bit for bit. */
export class Preprocess {
  /** size: numbers in a tensor. */
  constructor(
    private readonly core: Core,
    private readonly module: Module,
    private readonly handle: number,
    readonly size: number,
  ) {}

  /** Encoded JPEG or PNG to a tensor, float32 `(3, H, W)`. Throws CoreError for what is none. */
  encoded(bytes: Uint8Array): Float32Array {
    return this.core.lent([bytes], (data) =>
      this.tensor((out) => this.module._er_preprocess_encoded(this.handle, data!, bytes.length, MAX_PIXELS, out)),
    );
  }

  /** Pixels of a canvas or a camera, upright, RGBA. */
  pixels({ data, height, width }: ImageData): Float32Array {
    return this.core.lent([data], (rgba) =>
      this.tensor((out) => this.module._er_preprocess_rgba(this.handle, rgba!, height, width, MAX_PIXELS, out)),
    );
  }

  /** The two steps of `encoded` apart, each reported when it has ended. */
  steps(bytes: Uint8Array, ended: (step: string) => void): Float32Array {
    return this.core.lent([bytes], (data) => {
      const image = this.core.opened(this.module._er_decode(this.handle, data!, bytes.length, MAX_PIXELS));
      ended("decode");
      try {
        return this.tensor((out) => this.module._er_preprocess_image(this.handle, image, MAX_PIXELS, out));
      } finally {
        this.module._er_image_close(image);
        ended("preprocess");
      }
    });
  }

  close(): void {
    this.module._er_preprocess_close(this.handle);
  }

  private tensor(work: (out: number) => number): Float32Array {
    return this.core.room(4 * this.size, (out) => {
      this.core.checked(work(out));
      return this.core.floats(out, this.size).slice();
    });
  }
}

/** Rows found: their numbers, in the order in which they were added, and similarities, best first. */
export interface Hits {
  readonly rows: Int32Array;
  readonly similarities: Float32Array;
}

/** Embeddings in memory: float32, float16 or int8, searched exactly by inner product, or binary: by the cosine of the signs. */
export class Gallery {
  constructor(
    private readonly core: Core,
    private readonly module: Module,
    private readonly handle: number,
    readonly dim: number,
  ) {}

  get size(): number {
    return this.module._er_gallery_size(this.handle);
  }

  /** Appends rows, float32 `(n, dim)`. */
  add(rows: Float32Array): void {
    this.require(rows);
    this.core.lent([rows], (data) => this.core.checked(this.module._er_gallery_add(this.handle, data!, rows.length / this.dim)));
  }

  /** The best k rows for one query, fewer where the gallery has fewer. */
  search(query: Float32Array, k: number): Hits {
    if (query.length !== this.dim) throw new CoreError(`expected a query of ${this.dim} numbers, got ${query.length}`, "input");
    if (!Number.isInteger(k) || k < 1) throw new CoreError(`expected a k of 1 or more, got ${k}`, "input");
    const most = Math.min(k, this.size);
    if (most === 0) return { rows: new Int32Array(), similarities: new Float32Array() };
    return this.core.lent([query], (data) =>
      this.core.room(8 * most, (out) => {
        const scores = out + 4 * most;
        this.core.checked(this.module._er_gallery_search(this.handle, data!, 1, most, out, scores));
        const rows = new Int32Array(this.module.HEAPU8.buffer, out, most).slice();
        return { rows, similarities: this.core.floats(scores, most).slice() };
      }),
    );
  }

  close(): void {
    this.module._er_gallery_close(this.handle);
  }

  private require(rows: Float32Array): void {
    if (rows.length % this.dim !== 0) throw new CoreError(`expected rows of ${this.dim} numbers, got ${rows.length}`, "input");
  }
}
