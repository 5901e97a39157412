/** The service worker of `edgerecall web`: keeps all files, answers from them, and isolates the page. */
interface Scope {
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  addEventListener(type: string, listener: (event: Event & Extended) => void): void;
  skipWaiting(): Promise<void>;
}

interface Extended {
  readonly request: Request;
  waitUntil(work: Promise<unknown>): void;
  respondWith(answer: Promise<Response>): void;
}

interface Files {
  readonly version: string; // another for other files
  readonly files: readonly string[];
}

const scope = self as unknown as Scope;
const PREFIX = "edgerecall-";
const ISOLATING = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/** All of a version's files, or nothing: a cache that is incomplete is thrown away. */
async function install(): Promise<void> {
  const root = scope.registration.scope;
  const { version, files } = (await (await fetch(`${root}files.json`, { cache: "no-store" })).json()) as Files;
  const name = PREFIX + root + version;
  const kept = await caches.open(name);
  try {
    await kept.addAll(files.map((file) => new Request(root + file, { cache: "no-store" })));
  } catch (error) {
    await caches.delete(name);
    throw error;
  }
  await scope.skipWaiting();
}

/** Only the newest version of this folder stays. */
async function activate(): Promise<void> {
  const own = (await caches.keys()).filter((name) => name.startsWith(PREFIX + scope.registration.scope));
  await Promise.all(own.slice(0, -1).map((name) => caches.delete(name)));
  await scope.clients.claim();
}

async function answer(request: Request): Promise<Response> {
  const found = (await caches.match(request, { ignoreSearch: true })) ?? (await fetch(request));
  if (found.status === 0) return found;
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(ISOLATING)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}

scope.addEventListener("install", (event) => event.waitUntil(install()));
scope.addEventListener("activate", (event) => event.waitUntil(activate()));
scope.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(scope.registration.scope)) {
    event.respondWith(answer(event.request));
  }
});
