// What is known of a store: facts, numbers of every example, pictures. All of it is data, shown as text only.
"use strict";

let facts, source;
const train = { name: "train", noun: "training example" };
const test = { name: "test", noun: "test example" };
const sets = { train, test };
const MISSING = 0xffff;

/** The score that two bytes hold: thousandths, and a bit for its sign. */
function scoreIn(code) {
  if (code === MISSING) return NaN;
  const size = (code >> 1) / 1000;
  return code & 1 ? -(size || 1e-4) : size; // what rounds to nothing keeps its sign
}

/** The q-value that two bytes hold. */
function qIn(code) {
  return code === MISSING ? NaN : (code >> 1) / 1000;
}

/** Whether chance explains what has this q-value: q > .1, before it was rounded. */
function isChance(code) {
  return code !== MISSING && (code & 1) === 1;
}

/** Load what the first view shows. */
async function load() {
  source = sourceOf();
  facts = await source.facts();
  train.n = facts.n_train;
  test.n = facts.n_test;
  const wanted = source.isWhole || source instanceof LiveSource ? [train, test] : [train];
  await Promise.all(wanted.map(loaded));
}

const loads = new Map();

/** Load the numbers of a set, once. */
function loaded(set) {
  if (!loads.has(set)) loads.set(set, loadSet(set));
  return loads.get(set);
}

async function loadSet(set) {
  const { name } = set;
  set.picture = facts.pictures[name];
  const wanted = [`${name}/columns`];
  if (set === train) wanted.push("train/order");
  const listed = set === train && facts.n_listed?.train && source.has("train/listed"); // earlier copies have no such array
  if (listed) wanted.push("train/listed");
  if (set.picture?.has_own_order) wanted.push(`${name}/pictured`);
  const keys = facts.keys[name] && (source.isWhole || source.hasKeysAtOnce(name)) ? source.keys(name) : null;
  const [columns, ...orders] = await Promise.all(wanted.map((one) => source.array(one)));
  set.keys = await keys;
  const column = (number) => columnIn(columns, COLUMNS[name], number, set.n);
  if (set === train) {
    [set.order] = orders;
    const owners = listed ? orders[1] : set.order.subarray(0, facts.n_listed?.train ?? 0);
    set.owners = new Map(Array.from(owners, (row, place) => [row, place]));
    readTrain(column);
  } else {
    [set.label, set.nCorrect] = [column(0), column(1)];
    set.owners = new Map();
    column(2).forEach((place, row) => { if (place) set.owners.set(row, place - 1); }); // 0 is none
    set.rate = Float64Array.from(set.nCorrect, (k) => k / facts.n_models);
    set.order = Uint32Array.from(set.label.keys()).sort((a, b) => set.nCorrect[a] - set.nCorrect[b] || a - b);
  }
  set.place = placesOf(set.order, set.n);
  if (set.picture) {
    const order = set.picture.has_own_order ? orders[orders.length - 1] : set.order.subarray(0, set.picture.n);
    set.picturedAt = placesOf(order, set.n);
  }
}

const COLUMNS = { train: 6, test: 3 };

/** One of some columns whose lowest bytes come first, then all next ones. */
function columnIn(bytes, nColumns, number, n) {
  const found = new Uint32Array(n);
  for (let plane = 0; plane * nColumns * n < bytes.length; plane++) {
    const from = (plane * nColumns + number) * n;
    for (let at = 0; at < n; at++) found[at] += bytes[from + at] * 256 ** plane;
  }
  return found;
}

/** At which place of an order each example is; -1 where it is not in it. */
function placesOf(order, n) {
  const places = new Int32Array(n).fill(-1);
  order.forEach((row, place) => { places[row] = place; });
  return places;
}

/** Numbers come in the order of the list, which packs best, and are kept by id. */
function readTrain(column) {
  const { order, n } = train, byId = (values, Kind = values.constructor) => {
    const found = new Kind(n);
    for (let place = 0; place < n; place++) found[order[place]] = values[place];
    return found;
  };
  const [label, nIn, wrongIn, wrongOut] = [0, 1, 2, 3].map((number) => byId(column(number)));
  const kIn = nIn.map((all, row) => all - wrongIn[row]);
  const nCorrect = kIn.map((k, row) => k + (facts.n_models - nIn[row] - wrongOut[row]));
  const [shrunk, q] = [column(4), column(5)];
  Object.assign(train, {
    label, nIn, nCorrect, kIn,
    shrunk: byId(Float64Array.from(shrunk, scoreIn)), q: byId(Float64Array.from(q, qIn)),
    isChance: byId(Uint8Array.from(q, isChance)),
  });
  for (const name of ["memorization", "pIn", "pOut"]) train[name] = new Float64Array(n);
  for (let row = 0; row < n; row++) {
    const [k, size, kOut, nOut] = armsOf(row);
    train.memorization[row] = scoreOf(k, size, kOut, nOut);
    train.pIn[row] = k / size;
    train.pOut[row] = kOut / nOut;
  }
}

/** Right models with the training example, models with it, right models without it, models without it. */
function armsOf(row) {
  const nIn = train.nIn[row];
  return [train.kIn[row], nIn, train.nCorrect[row] - train.kIn[row], facts.n_models - nIn];
}

/** The same of a training example and an example of a set that it may influence. */
function pairArms(trainRow, on, row, kIn) {
  const nIn = train.nIn[trainRow];
  return [kIn, nIn, on.nCorrect[row] - kIn, facts.n_models - nIn];
}

/** The partners of an example by kind, each from the strongest; null where there are no lists of it. */
async function partnersOf(set, row) {
  if (!source.hasLists(set, row)) return null;
  const { found, strip } = await source.lists(set, row), groups = {};
  facts.groups[set.name].forEach((name, group) => {
    groups[name] = [];
    const other = set === train && name !== "peers" ? test : train;
    for (let i = 0; i < facts.shown; i++) {
      const at = 3 * (group * facts.shown + i), partner = found[at] - 1;
      if (partner < 0) break;
      const [trainRow, on, onRow] = set === test ? [partner, test, row] : other === test ? [row, test, partner] : [partner, train, row];
      groups[name].push({
        other, row: partner, trainRow, onRow, on, arms: pairArms(trainRow, on, onRow, found[at + 1]),
        q: qIn(found[at + 2]), isChance: isChance(found[at + 2]), tile: 1 + group * facts.shown + i,
      });
    }
  });
  return { groups, strip: strip && stripSeen(set, row, strip) };
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
  if (!facts.n_models) return text;
  if (set === test) return `${text}, ${brief(test.rate[row])} of the models right`;
  const z = anytimeZ(facts.n_models, facts.alpha);
  return `${text}, memorization ${brief(train.memorization[row])} ${briefInterval(memorizationInterval(row, z))}`;
}

function memorizationInterval(row, z) {
  return intervalOf(...armsOf(row), z);
}

/** Make an element with text; names are data and become nothing else. */
function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
