// Sends a picture to the server that this page comes from, by the Open Inference Protocol, and shows what it finds.

const model = document.body.dataset.model;
const url = `v2/models/${encodeURIComponent(model)}`;
const at = (id) => document.getElementById(id);
let last = null; // the picture that was asked about
let turn = 0; // of the newest question: answers to those before it come too late

function headers() {
  const token = sessionStorage.getItem("edgerecall-token");
  return token ? { authorization: `Bearer ${token}` } : {};
}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

async function asked(path, options = {}, more = {}) {
  const answer = await fetch(path, { ...options, headers: { ...headers(), ...more } }).catch(() => {
    throw new Error("the server does not answer");
  });
  at("access").hidden = answer.status !== 401;
  if (answer.status === 401) throw new Error("this server asks for its token");
  return answer;
}

// What an answer says; one that says nothing in JSON has at least a status.
async function read(answer) {
  const told = await answer.json().catch(() => null);
  if (!answer.ok || told === null) throw new Error(told?.error ?? `status ${answer.status} ${answer.statusText}`);
  return told;
}

async function about() {
  const told = await read(await asked(url));
  const dim = told.outputs.find((one) => one.name === "embedding").shape[1];
  const gallery = told.outputs.some((one) => one.name === "ids");
  at("about").textContent = `${told.platform.replace("edgerecall_", "").replaceAll("_", " ")}, embeddings of ${dim} numbers${gallery ? "" : ", no gallery"}`;
  return { gallery };
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

async function search(picture) {
  const mine = ++turn;
  last = picture;
  const preview = at("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(picture);
  preview.hidden = false;
  at("hint").hidden = true;
  say("…");
  try {
    const { gallery } = await about();
    const bytes = new Uint8Array(await picture.arrayBuffer());
    const { body, size } = request(bytes, gallery ? ["ids", "labels", "scores"] : ["embedding"], Number(at("count").value));
    const began = performance.now();
    const more = { "inference-header-content-length": String(size), "content-type": "application/octet-stream" };
    const told = await read(await asked(`${url}/infer`, { method: "POST", body }, more));
    if (mine !== turn) return;
    const milliseconds = Math.round(performance.now() - began);
    const data = Object.fromEntries(told.outputs.map((one) => [one.name, one.data]));
    if (gallery) show(data, mine);
    else at("found").replaceChildren();
    say(gallery ? `${data.ids.length} nearest, in ${milliseconds} ms` : `an embedding, in ${milliseconds} ms: [${data.embedding.slice(0, 8).map((one) => one.toFixed(4)).join(", ")}, …]`);
  } catch (error) {
    if (mine !== turn) return;
    at("found").replaceChildren();
    say(error.message, true);
  }
}

function show({ ids, labels, scores }, mine) {
  const cards = ids.map((id, index) => {
    const card = document.createElement("li");
    const button = card.appendChild(document.createElement("button"));
    const picture = button.appendChild(document.createElement("span"));
    picture.className = "picture";
    const told = button.appendChild(document.createElement("span"));
    told.className = "told";
    const label = told.appendChild(document.createElement("span"));
    label.className = "label";
    label.textContent = labels[index];
    const name = told.appendChild(document.createElement("span"));
    name.className = "id";
    name.textContent = id;
    const meter = told.appendChild(document.createElement("meter"));
    [meter.min, meter.max, meter.value] = [0, 1, Math.max(0, scores[index])];
    meter.title = `similarity ${scores[index].toFixed(4)}`;
    told.append(` ${scores[index].toFixed(3)}`);
    button.disabled = true;
    fill(button, picture, id, mine);
    return card;
  });
  at("found").replaceChildren(...cards);
}

// A result's picture, where the server has it; a press then asks about that one.
async function fill(button, place, id, mine) {
  const path = `pictures/${id.split("/").map(encodeURIComponent).join("/")}`;
  const answer = await fetch(path, { headers: headers() }).catch(() => null);
  if (mine !== turn) return;
  if (!answer || !answer.ok) {
    place.textContent = "no picture";
    return;
  }
  const blob = await answer.blob().catch(() => null);
  if (blob === null || mine !== turn) return;
  const image = place.appendChild(document.createElement("img"));
  image.alt = id;
  image.onload = () => URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(blob);
  button.disabled = false;
  button.onclick = () => search(blob);
}

function first(files) {
  const picture = [...files].find((one) => one.type.startsWith("image/") || one.type === "");
  if (picture) search(picture);
  else if (files.length) say("that is no picture", true);
}

for (const input of document.querySelectorAll("input[type=file]")) {
  input.onchange = () => {
    first(input.files);
    input.value = "";
  };
}
document.ondragover = (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
};
document.ondragleave = () => at("drop").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  first(event.dataTransfer.files);
};
document.onpaste = (event) => first(event.clipboardData.files);
at("count").onchange = () => last && search(last);
at("access").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("edgerecall-token", at("token").value);
  about().then(() => (last ? search(last) : say("")), (error) => say(error.message, true));
};
about().catch((error) => say(error.message, true));
