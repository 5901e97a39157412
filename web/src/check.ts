/** Embeddings against the sealed ones, as Python's `verify.compare` and the C++ program's. */
import contract from "../../runtimes/core/contract.json";

export interface Check {
  readonly minCosine: number;
  readonly maxError: number;
  readonly tolerance: number;
}

const RELATIVE: Readonly<Record<string, number>> = contract.tolerance;
const LEAST = 1e-3; // of the reference's largest value

/** Raw embeddings `(n, dim)`. precision: what ran, such as "int8+fp32"; quantisation: what the artifact is. */
export function compare(
  output: Float32Array,
  reference: Float32Array,
  dim: number,
  precision: string,
  quantisation: string,
): Check {
  let [minCosine, maxError, largest] = [1, 0, LEAST];
  for (let begin = 0; begin < reference.length; begin += dim) {
    let [product, ours, theirs] = [0, 0, 0];
    for (let at = begin; at < begin + dim; ++at) {
      const [a, b] = [output[at] ?? NaN, reference[at]!];
      product += a * b;
      ours += a * a;
      theirs += b * b;
      maxError = Math.max(maxError, Math.abs(a - b)); // NaN stays NaN
      largest = Math.max(largest, Math.abs(b));
    }
    const lengths = Math.sqrt(ours) * Math.sqrt(theirs);
    minCosine = Math.min(minCosine, lengths > 0 ? product / lengths : 0);
  }
  const names = [quantisation, ...precision.replace("*", "").split("+")];
  return { minCosine, maxError, tolerance: largest * Math.max(...names.map((name) => RELATIVE[name] ?? 0)) };
}

/** One line when the output lies outside the tolerance. */
export function problemOf(check: Check): string | undefined {
  if (check.maxError <= check.tolerance) return undefined;
  const [error, allowed] = [check.maxError.toExponential(2), check.tolerance.toExponential(2)];
  return `embeddings differ from the reference: max error ${error}, allowed ${allowed}`;
}

/** The largest |difference| of two arrays; infinite where their lengths differ. */
export function largestDifference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Infinity;
  let worst = 0;
  for (let at = 0; at < a.length; ++at) worst = Math.max(worst, Math.abs(a[at]! - b[at]!));
  return worst;
}
