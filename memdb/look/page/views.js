// The other views: classes, and the strongest pairs above thresholds.
"use strict";

const views = {
  sort: { classes: { column: "memorization", descending: true }, pairs: { column: "influence", descending: true } },
};

/** One row a class, counted from what is known of its examples. */
function classesOf() {
  const found = new Map();
  const of = (label) => {
    if (!found.has(label)) found.set(label, { label, n: 0, scored: 0, memorization: 0, memorized: 0, pIn: 0, pOut: 0, nTest: 0, right: 0 });
    return found.get(label);
  };
  for (let row = 0; row < train.n; row++) {
    const one = of(train.label[row]), value = train.memorization[row];
    one.n += 1;
    if (Number.isNaN(value)) continue;
    one.scored += 1;
    one.memorization += value;
    one.memorized += value >= 0.25;
    one.pIn += train.pIn[row];
    one.pOut += train.pOut[row];
  }
  for (let row = 0; row < test.n; row++) {
    const one = of(test.label[row]);
    one.nTest += 1;
    one.right += test.rate[row];
  }
  return [...found.values()].map((one) => ({
    ...one, memorization: one.memorization / one.scored, pIn: one.pIn / one.scored, pOut: one.pOut / one.scored, right: one.right / one.nTest,
  }));
}

function numberColumn(id, title, value, show, hint = "") {
  return { id, title, hint, kind: "number", value, cell: (row) => show(value(row)) };
}

/** Columns of rows that are kept in a list of their own. */
function classColumns(rows) {
  const name = (row) => facts.class_names[rows[row].label] ?? String(rows[row].label), size = (n) => n.toLocaleString("en");
  return [
    { id: "class", title: "class", kind: "words", value: name, text: name, cell: name },
    numberColumn("n", "examples", (row) => rows[row].n, size, "training examples"),
    numberColumn("memorized", "≥ .25", (row) => rows[row].memorized, size, "training examples with memorization of at least .25"),
    numberColumn("memorization", "memor.", (row) => rows[row].memorization, brief, "mean memorization"),
    numberColumn("in", "right in", (row) => rows[row].pIn, brief, "how often models that had an example are right on it"),
    numberColumn("out", "right out", (row) => rows[row].pOut, brief, "how often models that did not have it are right on it"),
    numberColumn("right", "right on test", (row) => rows[row].right, brief, "how often models are right on test examples of the class"),
  ];
}

async function showClasses() {
  await loaded(test);
  const rows = classesOf(), columns = classColumns(rows), sort = views.sort.classes;
  views.classes ??= new Grid(element("class-grid"), {
    onOpen: (row) => { location.hash = `#class=${views.classRows[row].label}`; },
    onSort: (id) => { turn(sort, id, ["class"]); showClasses(); },
  });
  views.classRows = rows;
  const column = columns.find(({ id }) => id === sort.column), way = sort.descending ? -1 : 1;
  const order = [...rows.keys()].sort((a, b) => way * compared(column, a, b) || rows[a].label - rows[b].label);
  views.classes.show("classes", order, columns, sort);
  element("class-commands").replaceChildren(commands(["memdb classes", "memdb class-influence"]));
}

function turn(sort, id, risingFirst) {
  sort.descending = sort.column === id ? !sort.descending : !risingFirst.includes(id);
  sort.column = id;
  say(`sorted by ${id}, ${sort.descending ? "largest" : "smallest"} first`);
}

/** How two rows compare by a column; what has no value comes last either way. */
function compared(column, a, b) {
  const x = column.value(a), y = column.value(b);
  if (column.text) return collator.compare(x, y);
  return (x !== x) - (y !== y) || x - y || 0;
}

async function loadPairs() {
  await loaded(test);
  const numbers = await source.array("pairs");
  let least;
  [views.nPairs, least] = numbers; // the first row says how many there are, and from which influence
  if (least) facts.min_influence = least / 1000; // copies of earlier versions do not say
  if (Number(element("least-influence").value) < facts.min_influence) element("least-influence").value = facts.min_influence;
  views.pairRows = Array.from({ length: numbers.length / 5 - 1 }, (_, at) => {
    const [trainRow, testRow, kIn, shrunk, q] = numbers.subarray(5 * at + 5, 5 * at + 10), arms = pairArms(trainRow, test, testRow, kIn);
    return { at, trainRow, testRow, arms, influence: scoreOf(...arms), shrunk: scoreIn(shrunk), q: qIn(q), isChance: isChance(q) };
  });
}

/** The training or the test picture of a pair: on a sheet of the pairs in their order, where there is one. */
function pairPicture(set, row, at, side) {
  const size = innerWidth > 620 ? 64 : 32;
  if (!facts.pair_sheets) return pictureOf(set, row, size, { hidden: true });
  const perSheet = set.picture.tiles / 2;
  const strip = sheetSeen(`pairs/${Math.floor(at / perSheet)}`, () => source.pairSheet(Math.floor(at / perSheet)), set.picture.mime);
  return pictureOf(set, row, size, { hidden: true, strip, tile: 2 * (at % perSheet) + side });
}

function pairColumns(rows, z) {
  const columns = [], linked = (set, row) => {
    const link = make("a", "", String(row));
    link.href = `#${set.name}=${row}`;
    link.tabIndex = -1; // Enter opens the training example
    return link;
  };
  for (const [set, name, side] of [[train, "trainRow", 0], [test, "testRow", 1]]) {
    if (set.picture) columns.push(pictureColumn(set, (row) => pairPicture(set, rows[row][name], rows[row].at, side)));
    columns.push({ id: set.name, title: set.name, kind: "number", value: (row) => rows[row][name], cell: (row) => linked(set, rows[row][name]) });
    columns.push({ id: "class", title: "class", kind: "words", cell: (row) => classOf(set, rows[row][name]) });
  }
  columns.push(
    numberColumn("influence", "influence", (row) => rows[row].influence, (value) => brief(value, "+")),
    { id: "interval", title: `${level()} selected`, kind: "number", cell: (row) => briefInterval(intervalOf(...rows[row].arms, z), "+") },
    numberColumn("q", "q", (row) => rows[row].q, briefQ),
    numberColumn("memorization", "memor.", (row) => train.memorization[rows[row].trainRow], brief, "memorization of the training example"),
  );
  columns.isFaint = (row) => rows[row].isChance;
  return columns;
}

async function showPairs() {
  if (!views.pairRows) await loadPairs();
  const rows = views.pairRows, sort = views.sort.pairs;
  const [influence, memorization] = ["least-influence", "least-memorization"].map((id) => Number(element(id).value));
  const ranked = test.n * train.memorization.reduce((n, value) => n + (value >= facts.min_memorization), 0);
  const z = selectedZ(facts.n_models, facts.alpha, Math.max(1, views.nPairs), Math.max(1, ranked));
  const columns = pairColumns(rows, z), column = columns.find(({ id }) => id === sort.column), way = sort.descending ? -1 : 1;
  views.pairs ??= new Grid(element("pair-grid"), {
    onOpen: (row) => open(train, views.pairRows[row].trainRow),
    onSort: (id) => { turn(sort, id, ["train", "test", "q"]); showPairs(); },
  });
  const left = rows.filter((one) => one.influence >= influence && train.memorization[one.trainRow] >= memorization).map(({ at }) => at);
  if (sort.column !== "influence" || !sort.descending) left.sort((a, b) => way * compared(column, a, b) || a - b);
  views.pairs.show("pairs", left, columns, sort);
  const all = views.nPairs > rows.length ? `, the strongest of ${views.nPairs.toLocaleString("en")}` : "";
  element("pairs-left").textContent = `${left.length.toLocaleString("en")} of ${counted(rows.length, "pair")} left${all}`;
  const command = `memdb pairs --min-influence ${Math.max(influence, facts.min_influence)} --min-memorization ${Math.max(memorization, facts.min_memorization)}`;
  element("pair-commands").replaceChildren(commands([command]));
}

/** The commands that list what the list shows: `top-memorized` where it can, else SQL, which knows no q-values. */
function listCommands() {
  const { set, label, find, range, brush, onlyFound, sort } = state, id = set === train ? "train_id" : "id";
  const isFiltered = find.trim() || range || brush, order = { shrunk: "shrunk", memorization: "memorization", interval: "lo", q: "q_value" }[sort.column];
  if (set === train && order && !isFiltered && sort.descending === (order !== "q_value")) {
    const ordered = order === "shrunk" ? "" : ` --order ${order}`;
    return [`memdb top-memorized${ordered}${label === "" ? "" : ` --class ${quoted(facts.class_names[label] ?? label)}`}`];
  }
  const names = set === train ? { id, class: "label", memorization: "memorization", interval: "lo", in: "p_in", out: "p_out" }
    : { id, key: "key", class: "label", right: "n_correct", rate: "n_correct" };
  if (!names[sort.column] || (set === train && onlyFound)) return [];
  const wanted = label === "" ? [] : [`label = ${label}`], text = find.trim().toLowerCase();
  const between = (name, [from, to]) => wanted.push(`${name} BETWEEN ${+from.toFixed(4)} AND ${+to.toFixed(4)}`);
  if (set === train && range) between("memorization", range);
  if (set === train && brush) {
    between("p_out", brush.slice(0, 2));
    between("p_in", brush.slice(2));
  }
  if (text) {
    const own = /^\d+$/.test(text) ? `id = ${text}` : "false", keyed = `contains(lower(key), '${text.replaceAll("'", "''")}')`;
    wanted.push(`${id} IN (SELECT id FROM ${set.name}_examples WHERE ${set.keys ? `${own} OR ${keyed}` : own})`);
  }
  const where = wanted.length ? ` WHERE ${wanted.join(" AND ")}` : "", way = sort.descending ? "DESC" : "ASC";
  return [`memdb sql ${quoted(`SELECT * FROM ${set === train ? "memorization" : "test_examples"}${where} ORDER BY ${names[sort.column]} ${way}, ${id} LIMIT 20`)}`];
}
