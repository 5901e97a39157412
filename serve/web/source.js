// The server that this page comes from, asked by the Open Inference Protocol.

const model = document.body.dataset.model;
const url = `v2/models/${encodeURIComponent(model)}`;

function headers() {
  const token = sessionStorage.getItem("edgerecall-token");
  return token ? { authorization: `Bearer ${token}` } : {};
}

export function setToken(token) {
  sessionStorage.setItem("edgerecall-token", token);
}

async function asked(path, options = {}, more = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...more } }).catch(() => {
    throw new Error("the server does not answer");
  });
  if (answer.status === 401) throw Object.assign(new Error("this server asks for its token"), { token: true });
  return answer;
}

// What an answer says; one that says nothing in JSON has at least a status.
async function read(answer) {
  const told = await answer.json().catch(() => null);
  if (!answer.ok || told === null) throw new Error(told?.error ?? `status ${answer.status} ${answer.statusText}`);
  return told;
}

// What answers, in words, and whether it has a gallery.
export async function about() {
  const told = await read(await asked(url));
  const dim = told.outputs.find((one) => one.name === "embedding").shape[1];
  const gallery = told.outputs.some((one) => one.name === "ids");
  const text = `${told.platform.replace("edgerecall_", "").replaceAll("_", " ")}, embeddings of ${dim} numbers${gallery ? "" : ", no gallery"}`;
  return { text, gallery };
}

// The request: JSON, then the picture as the bytes of a tensor of one element, with its length before it.
function request(bytes, outputs, k) {
  const input = { name: "image", datatype: "BYTES", shape: [1], parameters: { binary_data_size: bytes.length + 4 } };
  const text = new TextEncoder().encode(
    JSON.stringify({ inputs: [input], outputs: outputs.map((name) => ({ name })), parameters: { k } }),
  );
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, bytes.length, true);
  return { body: new Blob([text, length, bytes]), size: text.length };
}

// A picture's nearest k: ids, labels and scores; without a gallery its embedding.
export async function ask(picture, gallery, k) {
  const bytes = new Uint8Array(await picture.arrayBuffer());
  const { body, size } = request(bytes, gallery ? ["ids", "labels", "scores"] : ["embedding"], k);
  const more = { "inference-header-content-length": String(size), "content-type": "application/octet-stream" };
  const told = await read(await asked(`${url}/infer`, { method: "POST", body }, more));
  return Object.fromEntries(told.outputs.map((one) => [one.name, one.data]));
}

// The picture of a row of the gallery, as a Blob; null where there is none.
export async function pictureOf(id) {
  const path = `pictures/${id.split("/").map(encodeURIComponent).join("/")}`;
  const answer = await fetch(path, { headers: headers() }).catch(() => null);
  if (!answer || !answer.ok) return null;
  return answer.blob().catch(() => null);
}
