// A picture in, the nearest of the gallery out: by source.js, which asks a server, or the model that runs in this page.

import { about, ask, pictureOf, setToken } from "./source.js";

const at = (id) => document.getElementById(id);
let last = null; // the picture that was asked about
let turn = 0; // of the newest question: answers to those before it come too late

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

// What goes wrong, in words; where a token is missing, the form that takes one.
function failed(error) {
  at("access").hidden = !error.token;
  say(error.message, true);
}

async function tell() {
  const told = await about();
  at("access").hidden = true;
  at("about").textContent = told.text;
  return told;
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
    const { gallery } = await tell();
    const began = performance.now();
    const found = await ask(picture, gallery, Number(at("count").value));
    if (mine !== turn) return;
    const milliseconds = Math.round(performance.now() - began);
    if (gallery) show(found, mine);
    else at("found").replaceChildren();
    say(gallery ? `${found.ids.length} nearest, in ${milliseconds} ms` : `an embedding, in ${milliseconds} ms: [${found.embedding.slice(0, 8).map((one) => one.toFixed(4)).join(", ")}, …]`);
  } catch (error) {
    if (mine !== turn) return;
    at("found").replaceChildren();
    failed(error);
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

// A result's picture, where there is one; a press then asks about that one.
async function fill(button, place, id, mine) {
  const blob = await pictureOf(id);
  if (mine !== turn) return;
  if (blob === null) {
    place.textContent = "no picture";
    return;
  }
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
  setToken(at("token").value);
  tell().then(() => (last ? search(last) : say("")), failed);
};
tell().catch(failed);
