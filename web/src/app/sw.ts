/** The service worker of `edgerecall web`: keeps the files, answers from them, and isolates the page.
 *
 * This file ends in the version of the folder's files, so that another folder is another worker. Pictures are kept after the
 * rest, a few at a time: the page works offline as soon as it is installed, and shows those that are there.
 */
export {};

interface Scope {
  readonly registration: { readonly scope: string; readonly active: object | null };
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
const root = scope.registration.scope;
const PREFIX = `edgerecall ${root} `; // no other folder's begins so
const LIST = "edgerecall-site.json";
const AT_ONCE = 8;
const ISOLATING = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};
let current: string | undefined; // the name of this version's cache

function address(file: string): string {
  return root + file.split("/").map(encodeURIComponent).join("/");
}

function fresh(file: string): Request {
  return new Request(address(file), { cache: "no-store" });
}

/** All files but pictures, or nothing. An open page keeps its version until it is closed. */
async function install(): Promise<void> {
  const list = (await (await fetch(fresh(LIST))).json()) as Files;
  current = PREFIX + list.version;
  const there = await caches.has(current);
  const kept = await caches.open(current);
  try {
    await kept.addAll(list.files.filter((file) => !file.startsWith("pictures/")).map(fresh));
    await kept.put(root + LIST, new Response(JSON.stringify(list)));
  } catch (error) {
    if (!there) await caches.delete(current);
    throw error;
  }
  if (scope.registration.active === null) await scope.skipWaiting();
}

/** This version's cache: after a restart, the one that is left. */
async function cache(): Promise<Cache> {
  current ??= (await caches.keys()).filter((one) => one.startsWith(PREFIX)).pop();
  return caches.open(current ?? PREFIX);
}

async function activate(): Promise<void> {
  const kept = await cache();
  for (const other of await caches.keys()) {
    if (other.startsWith(PREFIX) && other !== current) await caches.delete(other);
  }
  await scope.clients.claim();
  void fill(kept).catch(() => undefined);
}

/** Keeps the pictures that are not kept yet, a few at a time, as long as the browser lets it. */
async function fill(kept: Cache): Promise<void> {
  const list = await kept.match(root + LIST);
  const { files } = list ? ((await list.json()) as Files) : { files: [] };
  const there = new Set((await kept.keys()).map((one) => one.url));
  const missing = files.filter((file) => !there.has(address(file)));
  for (let at = 0; at < missing.length; at += AT_ONCE) await kept.addAll(missing.slice(at, at + AT_ONCE).map(fresh));
}

async function answer(request: Request): Promise<Response> {
  const kept = await cache();
  const found = (await kept.match(request, { ignoreSearch: true, ignoreVary: true })) ?? (await fetch(request));
  if (request.mode === "navigate") void fill(kept).catch(() => undefined);
  if (found.status === 0) return found;
  const headers = new Headers(found.headers);
  for (const [header, value] of Object.entries(ISOLATING)) headers.set(header, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}

scope.addEventListener("install", (event) => event.waitUntil(install()));
scope.addEventListener("activate", (event) => event.waitUntil(activate()));
scope.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(root)) event.respondWith(answer(event.request));
});
