// What is shown: filters and sorting, kept in the address, and the way between the list and single examples.
"use strict";

const state = {
  view: "examples", set: train, label: "", find: "", range: null, brush: null, onlyFound: false,
  sort: { column: "shrunk", descending: true },
};
let z = NaN; // multiplier of the intervals in the list
let opened = null; // the example whose page is shown: { set, row }
let left = []; // rows of the list, in its order

let plane, histogram, grid;

const collator = new Intl.Collator(undefined, { numeric: true });

/** Tell people who don't see the page what has happened. */
function say(text) {
  element("spoken").textContent = text;
}

/** Say what went wrong, where everybody sees it. */
function complain(error) {
  element("problem").hidden = false;
  element("problem-text").textContent = error instanceof Problem ? error.message : `This page failed: ${error.message}`;
  if (!(error instanceof Problem)) console.error(error);
}

function columnsOf(set) {
  const columns = [];
  if (set.picture) columns.push(pictureColumn(set, (row) => pictureOf(set, row, 36)));
  columns.push({ id: "id", title: "id", kind: "number", value: (row) => row, cell: String });
  if (set.keys) columns.push({ id: "key", title: "key", kind: "words", text: (row) => keyOf(set, row), cell: (row) => keyShown(set, row) });
  columns.push({
    id: "class", title: "class", kind: "words", value: (row) => set.label[row], cell: (row) => classOf(set, row),
  });
  columns.push(...(set === train ? trainColumns() : [{
    id: "right", title: "models right", kind: "number", value: (row) => test.rate[row],
    cell: (row) => `${test.nCorrect[row]}/${facts.n_models}`, hint: "models that are right on the example",
  }, { id: "rate", title: "rate", kind: "number", value: (row) => test.rate[row], cell: (row) => brief(test.rate[row]) }]));
  for (const column of columns) column.value ??= column.text;
  if (set === train) columns.isFaint = (row) => train.isChance[row];
  return columns;
}

/** A key whose end is seen where it is cut: names of files begin alike. */
function keyShown(set, row) {
  const made = make("bdi", "", keyOf(set, row));
  made.title = made.textContent;
  return made;
}

function trainColumns() {
  return [
    {
      id: "memorization", title: "memor.", kind: "number", value: (row) => train.memorization[row],
      cell: (row) => brief(train.memorization[row]), hint: "memorization: right when in less right when held out",
    },
    {
      id: "interval", title: `${level()} selected`, kind: "number", value: (row) => memorizationInterval(row, z)[0],
      cell: (row) => briefInterval(memorizationInterval(row, z)), hint: "sorts by the lower end",
    },
    {
      id: "shrunk", title: "shrunk", kind: "number",
      value: (row) => (Number.isNaN(train.shrunk[row]) ? NaN : -train.place[row]), // the digits tie where the scores do not
      cell: (row) => brief(train.shrunk[row]), hint: "what is left of the score once luck is taken out",
    },
    {
      id: "q", title: "q", kind: "number", value: (row) => train.q[row], cell: (row) => briefQ(train.q[row]),
      hint: "share of false findings among the rows up to this one, at most, on average",
    },
    {
      id: "in", title: "right/in", kind: "number", value: (row) => train.pIn[row],
      cell: (row) => `${train.kIn[row]}/${train.nIn[row]}`, hint: "models that had it and are right, of those that had it",
    },
    {
      id: "out", title: "right/out", kind: "number", value: (row) => train.pOut[row],
      cell: (row) => { const [, , kOut, nOut] = armsOf(row); return `${kOut}/${nOut}`; },
      hint: "models without it that are right, of those without it",
    },
  ];
}

/** Rows that pass: filters that have nothing to do with scores first, for these decide what was ranked. */
function update() {
  const { set, label, find, range, brush, onlyFound } = state;
  const wanted = find.trim().toLowerCase(), ranked = [];
  for (let row = 0; row < set.n; row++) {
    if (label !== "" && set.label[row] !== Number(label)) continue;
    if (wanted && String(row) !== wanted && !(set.keys && set.keys[row].toLowerCase().includes(wanted))) continue;
    ranked.push(row);
  }
  let rows = ranked;
  if (set === train && facts.n_models) {
    if (range) rows = rows.filter((row) => train.memorization[row] >= range[0] && train.memorization[row] <= range[1]);
    if (onlyFound) rows = rows.filter((row) => !train.isChance[row] && !Number.isNaN(train.q[row]));
    if (brush) {
      rows = rows.filter((row) => train.pOut[row] >= brush[0] && train.pOut[row] <= brush[1]
        && train.pIn[row] >= brush[2] && train.pIn[row] <= brush[3]);
    }
    const known = (some) => some.reduce((n, row) => n + !Number.isNaN(train.memorization[row]), 0);
    z = selectedZ(facts.n_models, facts.alpha, Math.max(1, known(rows)), Math.max(1, known(ranked)));
  }
  const columns = columnsOf(set);
  left = sorted(rows, columns);
  grid.show(set, left, columns, state.sort);
  plane.show(set === train ? left : [], brush);
  histogram.show(range);
  showChoices();
  const nouns = { train: "training examples", test: "test examples" };
  const lines = listCommands();
  element("list-commands").replaceChildren(...(lines.length ? [commands(lines, "h2")] : []));
  element("left").textContent = `${left.length.toLocaleString("en")} of ${set.n.toLocaleString("en")} ${nouns[set.name]} left`;
}

const orders = new Map(); // of all rows by a column: a filter then need not sort

/** These rows in the order asked for. */
function sorted(rows, columns) {
  const column = columns.find(({ id }) => id === state.sort.column) ?? columns.find(({ id }) => id === "id");
  if (column.id === "interval") return orderOf(column, rows); // the multiplier depends on the rows
  const key = `${state.set.name} ${column.id} ${state.sort.descending}`;
  if (!orders.has(key)) orders.set(key, orderOf(column, Array.from({ length: state.set.n }, (_, row) => row)));
  const isLeft = new Uint8Array(state.set.n);
  for (const row of rows) isLeft[row] = 1;
  return orders.get(key).filter((row) => isLeft[row]);
}

function orderOf(column, rows) {
  const way = state.sort.descending ? -1 : 1;
  if (column.text) {
    return rows.sort((a, b) => way * collator.compare(column.text(a), column.text(b)) || a - b);
  }
  const values = new Float64Array(state.set.n);
  for (const row of rows) values[row] = column.value(row);
  // equal values: the larger score first, then the smaller id, as in memdb's own lists
  const second = state.set === train && column.id !== "id" ? train.memorization : null;
  return rows.sort((a, b) => {
    const x = values[a], y = values[b];
    if (x !== x || y !== y) return (x !== x) - (y !== y) || a - b;
    return way * (x - y) || (second && second[b] - second[a]) || a - b;
  });
}

function showChoices() {
  element("set").value = state.set.name;
  element("class").value = state.label;
  if (element("find").value !== state.find) element("find").value = state.find;
  element("from").value = state.range ? state.range[0] : "";
  element("to").value = state.range ? state.range[1] : "";
  element("found").checked = state.onlyFound;
  element("choose").classList.toggle("idle", state.set === test);
}

/** Change what the list shows, once what it needs is loaded. */
function change(changes) {
  if (changes.set && !loads.has(changes.set)) {
    loaded(changes.set).then(() => change(changes), complain);
    return;
  }
  if (changes.set === test && !["id", "key", "class"].includes(state.sort.column)) {
    state.sort = { column: "right", descending: false };
  } else if (changes.set === train && ["right", "rate"].includes(state.sort.column)) {
    state.sort = { column: "shrunk", descending: true };
  }
  Object.assign(state, changes);
  update();
  grid.toTop();
  if (!opened) history.replaceState(null, "", addressOf());
}

function sortBy(column) {
  const isSame = state.sort.column === column, startsHigh = !["id", "key", "class", "q", "right", "rate"].includes(column);
  const sort = { column, descending: isSame ? !state.sort.descending : startsHigh };
  change({ sort });
  say(`sorted by ${column}, ${sort.descending ? "largest" : "smallest"} first`);
}

/** The list as it is now, as the end of an address. */
function addressOf() {
  if (state.view !== "examples") return `#view=${state.view}`;
  const given = new URLSearchParams();
  if (state.set === test) given.set("set", "test");
  if (state.label !== "") given.set("class", state.label);
  if (state.find) given.set("find", state.find);
  if (state.range) given.set("memorization", state.range.join(","));
  if (state.brush) given.set("plane", state.brush.map((value) => +value.toFixed(4)).join(","));
  if (state.onlyFound) given.set("q", ".1");
  if (state.sort.column !== "shrunk" || !state.sort.descending) {
    given.set("sort", `${state.sort.descending ? "-" : ""}${state.sort.column}`);
  }
  return `#${given}`;
}

function numbersOf(text, n) {
  const found = (text ?? "").split(",").map(Number);
  return text && found.length === n && found.every(Number.isFinite) ? found : null;
}

/** Show what the address says: an example, or a view with its filters. */
async function follow() {
  const given = new URLSearchParams(location.hash.slice(1)), asked = location.hash;
  for (const set of [train, test]) {
    const text = given.get(set.name);
    if (text === null) continue;
    if (facts.n_models && !(await ready([train, test]))) return;
    const keys = set.keys ?? (/^\d+$/.test(text) || !facts.keys[set.name] ? null : await source.keys(set.name));
    if (asked !== location.hash) return; // somebody went on meanwhile
    const row = /^\d+$/.test(text) ? Number(text) : keys ? keys.indexOf(text) : -1;
    if (row >= 0 && row < set.n) return show(set, row);
    complain(new Problem(`There is no ${set.noun} ${text.slice(0, 200)}.`));
  }
  const sort = given.get("sort"), name = sort?.replace("-", "");
  state.view = ["classes", "pairs", "about"].includes(given.get("view")) ? given.get("view") : "examples";
  state.set = given.get("set") === "test" ? test : train;
  if (!(await ready([state.set])) || asked !== location.hash) return;
  const isKnown = columnsOf(state.set).some(({ id, value }) => id === name && value);
  state.sort = isKnown ? { column: name, descending: sort.startsWith("-") }
    : state.set === test ? { column: "right", descending: false } : { column: "shrunk", descending: true };
  state.label = /^\d+$/.test(given.get("class") ?? "") ? given.get("class") : "";
  state.find = given.get("find") ?? "";
  state.range = numbersOf(given.get("memorization"), 2);
  state.brush = numbersOf(given.get("plane"), 4);
  state.onlyFound = given.has("q");
  const came = opened;
  opened = null;
  element("example").hidden = true;
  showView();
  if (came && state.view === "examples") {
    if (came.set === state.set) grid.goTo(came.row);
    element("grid").focus({ preventScroll: true });
    window.scrollTo(0, returnTo);
  }
}

/** Wait for the numbers of some sets; false, and a message, where they cannot be had. */
async function ready(some) {
  try {
    await Promise.all(some.map(loaded));
    return true;
  } catch (error) {
    complain(error);
    return false;
  }
}

/** Show one of the four views. */
function showView() {
  for (const name of ["examples", "classes", "pairs", "about"]) {
    element(name === "examples" ? "overview" : name).hidden = name !== state.view;
    const link = element(`to-${name}`);
    if (name === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (state.view === "examples") update();
  else if (facts.n_models && state.view !== "about") (state.view === "classes" ? showClasses : showPairs)().catch(complain);
}

let returnTo = 0;

function open(set, row) {
  returnTo = window.scrollY;
  location.hash = `#${set.name}=${row}`;
}

function show(set, row) {
  opened = { set, row };
  for (const id of ["overview", "classes", "pairs", "about"]) element(id).hidden = true;
  element("example").hidden = false;
  const title = showExample(element("content"), set, row);
  const order = set === state.set && left.includes(row) ? left : set.order;
  const place = order.indexOf(row);
  for (const [id, other] of [["previous", order[place - 1]], ["next", order[place + 1]]]) {
    element(id).hidden = other === undefined;
    element(id).href = `#${set.name}=${other}`;
  }
  element("back").href = addressOf();
  window.scrollTo(0, 0);
  title.focus({ preventScroll: true });
}

function summarize() {
  const said = element("sentence");
  const about = [facts.dataset, facts.recipe, counted(facts.n_models, "model"), `subsets of ${brief(facts.subset_fraction)}`];
  element("store").textContent = about.join(" · ");
  document.title = `memdb: ${facts.dataset}`;
  if (!facts.n_models) {
    said.textContent = "This store has no models yet, so there are no scores. Train some: memdb train --add 100";
  } else {
    const n = train.memorization.reduce((sum, value) => sum + (value >= 0.25), 0);
    said.append(make("strong", "", `${n.toLocaleString("en")} of ${counted(train.n, "training example")}`));
    said.append(` ${n === 1 ? "is" : "are"} memorized (≥ .25); ${counted(facts.n_models, "model")}; intervals ±${brief(facts.mean_half_width ?? NaN)}.`);
    const known = scored(), nChance = train.isChance.reduce((sum, is) => sum + is, 0);
    element("noise").textContent = `${(known - nChance).toLocaleString("en")} scores are more than chance explains (q ≤ .1). The other ${nChance.toLocaleString("en")} are grey.`;
    const best = Array.from(train.order).filter((row) => !Number.isNaN(train.shrunk[row]));
    const chosen = selectedZ(facts.n_models, facts.alpha, Math.min(6, best.length) || 1, best.length || 1);
    for (const row of best.slice(0, 6)) {
      const card = make("a", "card"), picture = pictureOf(train, row, 64, { hidden: true });
      card.href = `#train=${row}`;
      if (picture) card.append(picture);
      card.append(make("b", "", brief(train.memorization[row])));
      card.append(make("span", "interval", briefInterval(memorizationInterval(row, chosen))));
      card.append(make("span", "muted", `train ${row} · ${classOf(train, row)}`));
      element("first").append(card);
    }
  }
  for (const label of [...new Set(train.label)].sort((a, b) => a - b)) {
    const option = make("option", "", facts.class_names[label] ?? String(label));
    option.value = label;
    element("class").append(option);
  }
  const rate = (value) => (value === null ? "–" : brief(value));
  const listed = {
    store: facts.store, "store id": facts.store_id, "data set": facts.dataset,
    recipe: `${facts.recipe} ${facts.recipe_version}`, "subset fraction": brief(facts.subset_fraction),
    "training examples": facts.n_train.toLocaleString("en"), "test examples": facts.n_test.toLocaleString("en"),
    models: facts.n_models.toLocaleString("en"), "accuracy in the subset": rate(facts.train_accuracy),
    "accuracy held out": rate(facts.out_accuracy), "accuracy on the test set": rate(facts.test_accuracy),
    "sha256 of the model ids": facts.models_sha256,
  };
  for (const [name, value] of Object.entries(listed)) element("listed").append(make("dt", "", name), make("dd", "", value));
  element("about-commands").replaceChildren(commands(["memdb info", "memdb reliability"]));
  const snapshot = facts.snapshot === null ? "" : `, snapshot ${facts.snapshot}`;
  element("colophon").textContent = `Store ${facts.store_id}${snapshot}, written ${facts.written_at}.`;
  element("plane").setAttribute("aria-label", "Training examples by how often models are right on them when held out and when in");
}

function listen() {
  const numbers = () => {
    const [from, to] = ["from", "to"].map((id) => element(id).value);
    change({ set: train, range: from === "" && to === "" ? null : [from === "" ? -1 : +from, to === "" ? 1 : +to] });
  };
  element("from").addEventListener("change", numbers);
  element("to").addEventListener("change", numbers);
  element("found").addEventListener("change", (event) => change({ set: train, onlyFound: event.target.checked }));
  element("set").addEventListener("change", (event) => change({ set: sets[event.target.value] }));
  element("class").addEventListener("change", (event) => change({ label: event.target.value }));
  element("find").addEventListener("input", async (event) => {
    const { set } = state;
    try {
      if (facts.keys[set.name]) set.keys ??= await source.keys(set.name);
    } catch (error) {
      complain(error);
    }
    change({ find: event.target.value });
  });
  for (const id of ["least-influence", "least-memorization"]) element(id).addEventListener("change", () => showPairs().catch(complain));
  element("problem-close").addEventListener("click", () => { element("problem").hidden = true; });
  element("clear").addEventListener("click", () => change({ label: "", find: "", range: null, brush: null, onlyFound: false }));
  element("theme").addEventListener("click", () => {
    const isDark = getComputedStyle(document.body).getPropertyValue("--is-dark").trim() === "1";
    document.documentElement.dataset.theme = isDark ? "light" : "dark";
    redraw();
  });
  document.addEventListener("keydown", (event) => {
    if (!opened || event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input, select")) return;
    const id = { ArrowLeft: "previous", ArrowRight: "next", Escape: "back" }[event.key];
    if (!id || element(id).hidden) return;
    event.preventDefault();
    if (id === "back") location.hash = element("back").href.split("#")[1] ?? "";
    else location.replace(element(id).href);
  });
  window.addEventListener("hashchange", follow);
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function redraw() {
  plane.draw();
  histogram.draw();
}

async function begin() {
  await load();
  plane = new Plane(element("plane"), {
    onBrush: (brush) => change({ set: train, brush }), onOpen: (row) => open(train, row), say,
  });
  histogram = new Histogram(element("histogram"), (range) => change({ set: train, range }));
  grid = new Grid(element("grid"), { onOpen: (row) => open(state.set, row), onSort: sortBy });
  document.body.style.setProperty("--counted", 2 * String(facts.n_models).length + 2); // characters of "208/210"
  for (const id of ["least-influence", "least-memorization"]) element(id).value = facts[id === "least-influence" ? "min_influence" : "min_memorization"];
  summarize();
  listen();
  element("main").hidden = false;
  await follow();
  if (opened) update();
}

begin().catch(complain);
