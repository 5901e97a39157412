/** What a page does that has no core: the browser decodes and resizes, by rules of its own. To be measured, not used. */
import type { Spec } from "../bundle.ts";

interface Op {
  readonly op: string;
  readonly size?: number;
  readonly rounding?: string;
  readonly margin?: string;
  readonly height?: number;
  readonly width?: number;
  readonly scale?: number;
  readonly mean?: readonly number[];
  readonly std?: readonly number[];
  readonly order?: string;
}

type Picture = ImageBitmap | OffscreenCanvas;

/** A tensor `(3, H, W)` by canvas, at its best quality of resizing. Throws Error for what the browser cannot decode. */
export async function byCanvas(bytes: Uint8Array<ArrayBuffer>, spec: Spec): Promise<Float32Array> {
  const ops = (spec.preprocess as { ops: readonly Op[] }).ops;
  let picture: Picture = await createImageBitmap(new Blob([bytes]));
  for (const op of ops) {
    const { width, height } = picture;
    if (op.op === "resize_short") {
      const [short, size] = [Math.min(width, height), op.size!];
      const side = (length: number): number =>
        op.rounding === "round" ? halfEven(length * (size / short)) : length === short ? size : Math.trunc((size * length) / short);
      picture = drawn(picture, side(width), side(height), 0, 0, width, height);
    } else if (op.op === "resize") {
      picture = drawn(picture, op.width!, op.height!, 0, 0, width, height);
    } else if (op.op === "center_crop") {
      const start = (margin: number): number => (op.margin === "round" ? halfEven(margin / 2) : Math.floor(margin / 2));
      const [left, top] = [start(width - op.width!), start(height - op.height!)];
      picture = drawn(picture, op.width!, op.height!, left, top, op.width!, op.height!);
    } else if (op.op === "normalize") {
      return normalized(pixelsOf(picture), op);
    }
  }
  throw new Error("the preprocessing has no normalisation");
}

/** Halves to the even neighbour, as Python and the core round. */
function halfEven(value: number): number {
  const down = Math.floor(value);
  return value - down === 0.5 ? down + (down % 2) : Math.round(value);
}

function drawn(from: Picture, width: number, height: number, left: number, top: number, w: number, h: number): OffscreenCanvas {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.drawImage(from, left, top, w, h, 0, 0, width, height);
  return canvas;
}

function pixelsOf(picture: Picture): ImageData {
  const { width, height } = picture;
  const canvas = picture instanceof OffscreenCanvas ? picture : drawn(picture, width, height, 0, 0, width, height);
  return canvas.getContext("2d")!.getImageData(0, 0, width, height);
}

function normalized({ data, width, height }: ImageData, { scale, mean, std, order }: Op): Float32Array {
  const tensor = new Float32Array(3 * width * height);
  for (let plane = 0; plane < 3; ++plane) {
    const channel = order === "bgr" ? 2 - plane : plane;
    for (let at = 0; at < width * height; ++at) {
      tensor[plane * width * height + at] = (data[4 * at + channel]! * scale! - mean![plane]!) / std![plane]!;
    }
  }
  return tensor;
}
