/** Arrays in NumPy's file format (numpy.org/neps/nep-0001), float32 alone. */

export interface NpyArray {
  readonly shape: readonly number[];
  readonly values: Float32Array<ArrayBuffer>;
}

const MAGIC = "\x93NUMPY";

/** Throws an Error for anything but a little-endian float32 array in C order. */
export function readNpy(bytes: Uint8Array, name: string): NpyArray {
  const refuse = (why: string): never => {
    throw new Error(`${name}: expected a float32 array in NumPy's format: ${why}`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12 || String.fromCharCode(...bytes.subarray(0, 6)) !== MAGIC) refuse("it is none");
  const wide = view.getUint8(6) > 1;
  const start = wide ? 12 : 10;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  if (start + length > bytes.length) refuse("it ends in its header");
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  if (!/'descr': '<f4'/.test(header) || !/'fortran_order': False/.test(header)) refuse(header.slice(0, 80));
  const shape = (/'shape': \(([\d, ]*)\)/.exec(header)?.[1] ?? refuse("no shape"))
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "")
    .map(Number);
  const count = shape.reduce((product, side) => product * side, 1);
  if (start + length + 4 * count !== bytes.length) refuse(`${bytes.length} bytes do not hold a shape of ${shape}`);
  return { shape, values: new Float32Array(bytes.slice(start + length).buffer) };
}

/** The bytes of an array's file. */
export function writeNpy({ shape, values }: NpyArray): Uint8Array<ArrayBuffer> {
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`;
  const padded = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n";
  const bytes = new Uint8Array(10 + padded.length + 4 * values.length);
  for (let at = 0; at < MAGIC.length; ++at) bytes[at] = MAGIC.charCodeAt(at);
  bytes[6] = 1;
  new DataView(bytes.buffer).setUint16(8, padded.length, true);
  bytes.set(new TextEncoder().encode(padded), 10);
  bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 10 + padded.length);
  return bytes;
}
