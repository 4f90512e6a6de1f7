// The page of one example: its picture, what the models did, whom it helps or who helps it, and how to ask again.
"use strict";

const level = () => `${+(facts.level * 100).toFixed(6)} %`;

/** Two bars, blue for models that had the example and orange for those that had not. */
function bars(arms) {
  const [kIn, nIn, kOut, nOut] = arms, made = make("dl", "bars");
  for (const [name, k, n] of [["in", kIn, nIn], ["out", kOut, nOut]]) {
    const group = make("div"), bar = make("dd", "bar"), fill = make("span", `fill ${name}`);
    fill.style.width = `${n ? (100 * k) / n : 0}%`;
    bar.append(fill);
    group.append(make("dt", name, name), bar, make("dd", "", `${k.toLocaleString("en")} of ${n.toLocaleString("en")}`));
    made.append(group);
  }
  return made;
}

function score(name, value, interval, kind) {
  const made = make("p", "score");
  made.append(make("strong", "", `${name} ${brief(value)} `), `${briefInterval(interval)} `);
  made.append(make("span", "muted", `${level()} ${kind}`));
  return made;
}

/** How a score settled as models were added: its estimate and anytime interval after each number of them. */
function curve(sums) {
  const points = facts.looks.map((nModels, at) => {
    const [nIn, kIn, right] = sums.subarray(3 * at, 3 * at + 3), arms = [kIn, nIn, right - kIn, nModels - nIn];
    const z = nModels > 1 ? anytimeZ(nModels, facts.alpha) : NaN;
    return { nModels, score: scoreOf(...arms), interval: intervalOf(...arms, z) };
  }).filter(({ score: value }) => !Number.isNaN(value));
  const made = make("figure", "settled"), canvas = make("canvas");
  const said = points.map(({ nModels, score: value, interval }) => `${nModels.toLocaleString("en")} models: ${brief(value)} ${briefInterval(interval)}`);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `How it settled. ${said.join("; ")}`);
  canvas.title = said.join("\n");
  canvas.redraw = () => drawCurve(canvas, points);
  new ResizeObserver(canvas.redraw).observe(canvas);
  const caption = make("figcaption", "muted", "how it settled, with anytime intervals");
  made.append(canvas, caption);
  return points.length ? made : null;
}

function drawCurve(canvas, points) {
  const ratio = window.devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
  if (!w) return;
  [canvas.width, canvas.height] = [w * ratio, h * ratio];
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(name).trim();
  pen.scale(ratio, ratio);
  pen.font = `12px ${style.fontFamily}`;
  const first = Math.log(points[0].nModels), last = Math.log(points.at(-1).nModels);
  const x = ({ nModels }) => 34 + (last > first ? ((Math.log(nModels) - first) / (last - first)) : 0.5) * (w - 62);
  const y = (value) => 8 + ((1 - value) / 2) * (h - 32);
  pen.strokeStyle = colour("--line");
  pen.fillStyle = colour("--muted");
  pen.textAlign = "right";
  for (const value of [-1, 0, 1]) {
    pen.beginPath();
    pen.moveTo(34, y(value));
    pen.lineTo(w - 14, y(value));
    pen.stroke();
    pen.fillText(String(value).replace("-", "−"), 28, y(value) + 4);
  }
  pen.textAlign = "center";
  let end = -Infinity;
  for (const point of points) { // as many labels as have room
    const text = point.nModels.toLocaleString("en"), half = pen.measureText(text).width / 2 + 4;
    if (x(point) - half < end) continue;
    pen.fillText(text, x(point), h - 6);
    end = x(point) + half;
  }
  [pen.strokeStyle, pen.fillStyle, pen.lineWidth] = [colour("--in"), colour("--in"), 1.5];
  pen.beginPath();
  points.forEach((point, at) => pen[at ? "lineTo" : "moveTo"](x(point), y(point.score)));
  pen.stroke();
  for (const point of points) {
    pen.beginPath();
    pen.moveTo(x(point), y(point.interval[0]));
    pen.lineTo(x(point), y(point.interval[1]));
    pen.stroke();
    pen.fillRect(x(point) - 2.5, y(point.score) - 2.5, 5, 5);
  }
}

/** One partner: picture, influence with its interval, and a link to its own page. */
function partnerCard(partner, z, strip) {
  const { other, row, arms } = partner, made = make("a", partner.isChance ? "card faint" : "card");
  made.href = `#${other.name}=${row}`;
  const [kIn, nIn, kOut, nOut] = arms;
  made.title = `right on ${partner.on.name} ${partner.onRow}: ${kIn} of ${nIn} models with train ${partner.trainRow}, ${kOut} of ${nOut} without it`;
  const picture = pictureOf(other, row, 64, { hidden: true, strip, tile: partner.tile });
  if (picture) made.append(picture);
  made.append(make("b", "", brief(scoreOf(...arms), "+")));
  made.append(make("span", "interval", briefInterval(intervalOf(...arms, z), "+")));
  made.append(make("span", "muted", `${other.name} ${row} · ${classOf(other, row)}`));
  return made;
}

function partnerList(title, hint, partners, z, strip) {
  const made = make("section"), cards = make("div", "cards");
  made.append(make("h3", "", title), make("p", "muted", hint));
  cards.append(...partners.map((partner) => partnerCard(partner, z, strip)));
  made.append(partners.length ? cards : make("p", "", "There are none."));
  return made;
}

/** The lists of an example's partners: the strongest, random ones to compare with, those that hurt, peers. */
async function partnersShown(set, row) {
  const found = await partnersOf(set, row), other = set === train ? test : train;
  if (!found) {
    const hint = `No list of its influences comes with this page, which has those of ${facts.n_listed.train.toLocaleString("en")} `
      + `training and of ${facts.n_listed.test.toLocaleString("en")} test examples. The commands below find them.`;
    return [make("p", "muted", hint), ...anyPair(set, row)];
  }
  const titles = set === train ? {
    helps: "Test examples that it helps most", hurts: "Test examples that it hurts most",
    peers: "Training examples that helped most to get it right",
  } : { helps: "Training examples that helped most to get it right", hurts: "Training examples that hurt it most" };
  const lists = ["helps", "random", "hurts", "peers"].filter((kind) => found.groups[kind] && (kind !== "peers" || found.groups.peers.length));
  return lists.map((kind) => {
    const partners = found.groups[kind];
    if (kind === "random") {
      return partnerList(`For comparison: random ${other.noun}s of class ${classOf(set, row)}`,
        `${level()} anytime intervals: nobody chose these.`, partners, anytimeZ(facts.n_models, facts.alpha), found.strip);
    }
    const nRanked = kind === "peers" ? scored() - 1 : set === train ? test.n : scored();
    const z = selectedZ(facts.n_models, facts.alpha, Math.max(1, partners.length), Math.max(1, nRanked));
    return partnerList(titles[kind], `${level()} selected intervals: the first ${partners.length} of ${nRanked.toLocaleString("en")} ranked. `
      + chanceSaid(partners), partners, z, found.strip);
  });
}

function chanceSaid(partners) {
  const n = partners.filter(({ isChance: is }) => is).length;
  return n === 0 ? "Chance explains none of them (q ≤ .1)." : `Chance explains those in grey (q > .1), ${n} of ${partners.length}.`;
}

/** How many training examples have a score. */
function scored() {
  let n = 0;
  for (const value of train.memorization) n += !Number.isNaN(value);
  return n;
}

/** The commands that show the same. */
function commandsOf(set, row) {
  const id = `--${set.name}-id ${row}`;
  const lines = set === train ? [`memdb score ${id}`, `memdb convergence ${id}`] : [];
  lines.push(`memdb top-influence ${id} -k ${facts.shown}`, `memdb top-influence ${id} -k ${facts.shown} --direction hurts`);
  if (set === train) lines.push(`memdb top-influence --target-id ${row} -k ${facts.shown}`);
  return commands(lines);
}

/** Commands, each with a button that copies it; `heading` is the element below the nearest one above. */
function commands(lines, heading = "h3") {
  const made = make("section", "commands"), store = facts.store === "memdb.zarr" ? "" : ` --store ${quoted(facts.store)}`;
  made.append(make(heading, "", "The same from the command line"));
  for (const line of lines) {
    const text = `${line}${store}`, row = make("div", "command"), code = make("code", "", text), copy = make("button", "", "copy");
    copy.type = "button";
    copy.setAttribute("aria-label", `copy ${line}`);
    code.tabIndex = 0; // it may scroll
    copy.addEventListener("click", () => {
      getSelection().selectAllChildren(code);
      navigator.clipboard?.writeText(text).then(() => say("copied"), () => say("selected: copy it with the keyboard"));
    });
    row.append(code, copy);
    made.append(row);
  }
  return made;
}

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
}

/** Put the page of an example into `root`; what takes longer to load comes after. */
function showExample(root, set, row) {
  const title = make("h2", "", `${set === train ? "Training" : "Test"} example ${row}`);
  title.tabIndex = -1;
  title.append(make("span", "muted", ` class ${classOf(set, row)}`));
  const main = make("div", "figure"), said = make("div", "said");
  const lists = facts.n_models ? partnersShown(set, row) : Promise.resolve([]);
  const own = set.picture && (source.isWhole || !source.hasLists(set, row)) ? pictureOf(set, row, 160) : null;
  if (own) main.append(own);
  const key = make("p", "key muted", set.keys ? keyOf(set, row) : "");
  if (facts.keys[set.name]) said.append(key);
  if (!facts.n_models) said.append(make("p", "", "No models yet, so no scores. Train some: memdb train --add 100"));
  else if (set === train) {
    const z = anytimeZ(facts.n_models, facts.alpha);
    said.append(score("memorization", train.memorization[row], memorizationInterval(row, z), "anytime"));
    said.append(bars(armsOf(row)), make("p", "muted", "models that are right on it: with it in their subset, and without"));
    if (train.isChance[row]) said.append(make("p", "muted", `Chance explains this score (q ${briefQ(train.q[row])}).`));
  } else {
    said.append(make("p", "score", `${test.nCorrect[row].toLocaleString("en")} of ${counted(facts.n_models, "model")} right`));
  }
  main.append(said);
  const partners = make("div", "partners");
  root.replaceChildren(title, main, partners, commandsOf(set, row));
  const isShown = () => opened?.set === set && opened.row === row;
  lists.then((made) => { if (isShown()) partners.replaceChildren(...made); }, complain);
  if (!own && set.picture && !source.isWhole && source.hasLists(set, row)) showOwn(main, set, row).catch(complain);
  if (set === train && train.place[row] < facts.n_settled) {
    source.row("train/settled", train.place[row], 3 * facts.looks.length).then((sums) => {
      const made = curve(sums);
      if (made && isShown()) said.append(made);
    }, complain);
  }
  if (facts.keys[set.name] && !set.keys) source.key(set.name, row).then((text) => { key.textContent = text; }, complain);
  return title;
}

/** The picture of an example that has a strip: it is the first on it. */
async function showOwn(main, set, row) {
  const { strip } = await source.lists(set, row);
  const picture = strip && pictureOf(set, row, 160, { strip: stripSeen(set, row, strip), tile: 0 });
  if (picture) main.prepend(picture);
}
