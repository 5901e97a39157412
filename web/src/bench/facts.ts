/** What a page may know of the device that it is on. */

interface NavigatorFacts {
  readonly deviceMemory?: number;
  readonly userAgentData?: { readonly platform: string; readonly mobile: boolean };
  readonly gpu?: { requestAdapter(): Promise<{ readonly info?: { vendor: string; architecture: string } } | null> };
  readonly getBattery?: () => Promise<{ readonly charging: boolean; readonly level: number }>;
}

/** Plain values for the report; what the browser does not tell is left out. */
export async function deviceFacts(): Promise<Record<string, unknown>> {
  const told = navigator as Navigator & NavigatorFacts;
  const quiet = async <Value>(ask: Promise<Value> | undefined): Promise<Value | undefined> => {
    try {
      return await ask;
    } catch {
      return undefined;
    }
  };
  const adapter = await quiet(told.gpu?.requestAdapter());
  const battery = await quiet(told.getBattery?.());
  const facts = {
    target: "wasm32",
    browser: navigator.userAgent,
    platform: told.userAgentData?.platform,
    mobile: told.userAgentData?.mobile,
    cores: navigator.hardwareConcurrency,
    memory_gb: told.deviceMemory,
    gpu: adapter?.info && `${adapter.info.vendor} ${adapter.info.architecture}`.trim(),
    charging: battery?.charging,
    battery: battery?.level,
    isolated: globalThis.crossOriginIsolated,
    screen: `${screen.width} x ${screen.height}`,
  };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined && value !== ""));
}
