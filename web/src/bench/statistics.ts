/** Figures of many samples, as numpy's median and percentile. */

/** share: from 0 to 1, interpolated between samples. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const [below, above] = [sorted[low] ?? NaN, sorted[Math.min(low + 1, sorted.length - 1)] ?? NaN];
  return below + (place - low) * (above - below);
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

/** The step of this context's clock in ns: 5 us where a page is isolated, 100 us and more where it is not. */
export function clockStepNs(): number {
  const steps: number[] = [];
  for (let begin = performance.now(), last = begin; steps.length < 20 && last - begin < 200; ) {
    const now = performance.now();
    if (now > last) steps.push(now - last);
    last = now;
  }
  return Math.min(...steps, Infinity) * 1e6;
}
