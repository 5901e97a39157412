/** Where files come from: a folder on a server, with what each request must carry. */

export type ReadFile = (path: string) => Promise<Uint8Array<ArrayBuffer>>;

/** Reads files below a URL. Its Error says which file, and what the server answered. */
export function filesBelow(root: URL, headers: Record<string, string> = {}): ReadFile {
  return async (path) => {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), root);
    let answer: Response;
    try {
      answer = await fetch(url, { headers });
    } catch (error) {
      throw new Error(`${path}: the server cannot be reached: ${String(error)}`);
    }
    if (!answer.ok) throw new Error(`${path}: the server answered ${answer.status} ${answer.statusText}`);
    return new Uint8Array(await answer.arrayBuffer());
  };
}
