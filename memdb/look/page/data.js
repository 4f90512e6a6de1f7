// What the file holds: facts, packed numbers, lists and sheets of pictures. All of it is data, shown as text only.
"use strict";

const element = (id) => document.getElementById(id);

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

const KINDS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array, float64: Float64Array,
};

function arrayOf(name) {
  const [kind, base64] = element(name).textContent.split(" ");
  return new KINDS[kind](bytesOf(base64).buffer);
}

const facts = JSON.parse(element("facts").textContent);
const train = { name: "train", noun: "training example", n: facts.n_train };
const test = { name: "test", noun: "test example", n: facts.n_test };
const sets = { train, test };
const FOUND = 0.1; // q-values above this are what chance explains

for (const set of [train, test]) {
  set.keys = facts[`${set.name}_keys`];
  set.label = arrayOf(`${set.name}/label`);
  set.nCorrect = arrayOf(`${set.name}/n_correct`);
  set.owners = new Map(Array.from(arrayOf(`${set.name}/list/owners`), (row, place) => [row, place]));
  set.lists = { ids: arrayOf(`${set.name}/list/ids`), kIn: arrayOf(`${set.name}/list/k_in`) };
  set.lists.q = arrayOf(`${set.name}/list/q_value`);
  set.picture = facts.pictures[set.name];
  if (set.picture) {
    set.rank = new Map(Array.from(arrayOf(`${set.name}/order`), (row, rank) => [row, rank]));
  }
}

Object.assign(train, {
  nIn: arrayOf("train/n_in"), kIn: arrayOf("train/k_in"), shrunk: arrayOf("train/shrunk"), q: arrayOf("train/q_value"),
});
for (const column of ["memorization", "pIn", "pOut"]) train[column] = new Float64Array(train.n);
test.rate = Float64Array.from(test.nCorrect, (k) => k / facts.n_models);
for (let row = 0; row < train.n; row++) {
  const [kIn, nIn, kOut, nOut] = armsOf(row);
  train.memorization[row] = scoreOf(kIn, nIn, kOut, nOut);
  train.pIn[row] = kIn / nIn;
  train.pOut[row] = kOut / nOut;
}

/** Right models with the training example, models with it, right models without it, models without it. */
function armsOf(row) {
  const nIn = train.nIn[row];
  return [train.kIn[row], nIn, train.nCorrect[row] - train.kIn[row], facts.n_models - nIn];
}

function pairArms(trainRow, testRow, kIn) {
  const nIn = train.nIn[trainRow];
  return [kIn, nIn, test.nCorrect[testRow] - kIn, facts.n_models - nIn];
}

/** The partners of an example: strongest first, or the random ones of its class; null where the file has no list. */
function partnersOf(set, row, { random }) {
  const place = set.owners.get(row);
  if (place === undefined) return null;
  const found = [];
  for (let i = 0; i < facts.shown; i++) {
    const at = place * 2 * facts.shown + (random ? facts.shown : 0) + i;
    const other = set.lists.ids[at] - 1;
    if (other < 0) break;
    const [trainRow, testRow] = set === train ? [row, other] : [other, row];
    const arms = pairArms(trainRow, testRow, set.lists.kIn[at]);
    found.push({ row: other, trainRow, testRow, arms, q: random ? NaN : set.lists.q[place * facts.shown + i] });
  }
  return found;
}

function classOf(set, row) {
  return facts.class_names[set.label[row]] ?? String(set.label[row]);
}

function keyOf(set, row) {
  return set.keys ? set.keys[row] : String(row);
}

/** What is said of an example where its picture can't be seen. */
function described(set, row) {
  const text = `${set.noun} ${row}, class ${classOf(set, row)}`;
  if (set === test) return `${text}, ${brief(test.rate[row])} of the models right`;
  return `${text}, memorization ${brief(train.memorization[row])}`;
}

function memorizationInterval(row, z) {
  return intervalOf(...armsOf(row), z);
}

const sheetUrls = new Map();

/** A sheet of pictures as a Blob, decoded when it is first seen. */
function sheetUrl(set, number) {
  const id = `${set.name}/sheet/${number}`;
  if (!sheetUrls.has(id)) {
    const blob = new Blob([bytesOf(element(id).textContent)], { type: set.picture.mime });
    sheetUrls.set(id, URL.createObjectURL(blob));
  }
  return sheetUrls.get(id);
}

/** Make an element with text; names are data and become nothing else. */
function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

/** The picture of an example, `size` pixels at most, or null where there is none. */
function pictureOf(set, row, size, { hidden = false } = {}) {
  const rank = set.picture && set.rank.get(row);
  if (rank === undefined || !set.picture) return null;
  const { height, width, tile_height, tile_width, columns, tiles } = set.picture;
  const longest = Math.max(height, width);
  const scale = size >= longest ? Math.floor(size / longest) : size / longest;
  const made = make("span", scale >= 1 ? "picture pixels" : "picture");
  if (hidden) made.setAttribute("aria-hidden", "true");
  else {
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", described(set, row));
  }
  const tile = rank % tiles;
  made.style.width = `${width * scale}px`;
  made.style.height = `${height * scale}px`;
  made.style.backgroundImage = `url(${sheetUrl(set, Math.floor(rank / tiles))})`;
  made.style.backgroundSize = `${columns * tile_width * scale}px auto`;
  made.style.backgroundPosition =
    `${-(tile % columns) * tile_width * scale}px ${-Math.floor(tile / columns) * tile_height * scale}px`;
  return made;
}
