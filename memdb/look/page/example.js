// The page of one example: its picture, what the models did, whom it helps or who helps it, and how to ask again.
"use strict";

/** Two bars, blue for models that had the example and orange for those that had not. */
function bars(arms) {
  const [kIn, nIn, kOut, nOut] = arms, made = make("dl", "bars");
  for (const [name, kind, k, n] of [["in", "in", kIn, nIn], ["out", "out", kOut, nOut]]) {
    const bar = make("dd", "bar"), fill = make("span", `fill ${kind}`);
    fill.style.width = `${n ? (100 * k) / n : 0}%`;
    bar.append(fill);
    made.append(make("dt", kind, name), bar, make("dd", "", `${k.toLocaleString("en")} of ${n.toLocaleString("en")}`));
  }
  return made;
}

function score(name, value, interval, kind) {
  const made = make("p", "score"), level = `${+(facts.level * 100).toFixed(6)} %`;
  made.append(make("strong", "", `${name} ${brief(value)} `), `${briefInterval(interval)} `);
  made.append(make("span", "muted", `${level} ${kind}`));
  return made;
}

/** One partner: picture, influence with its interval, and a link to its own page. */
function partnerCard(other, partner, z) {
  const [lo, hi] = intervalOf(...partner.arms, z), made = make("a", partner.q > FOUND ? "card faint" : "card");
  made.href = `#${other.name}=${partner.row}`;
  const [kIn, nIn, kOut, nOut] = partner.arms;
  made.title = `right on the test example: ${kIn} of ${nIn} with it, ${kOut} of ${nOut} without it\n`
    + `memdb score --train-id ${partner.trainRow} --test-id ${partner.testRow}`;
  const picture = pictureOf(other, partner.row, 64, { hidden: true });
  if (picture) made.append(picture);
  made.append(make("b", "", brief(scoreOf(...partner.arms), "+")));
  made.append(make("span", "interval", briefInterval([lo, hi], "+")));
  made.append(make("span", "muted", `${other.name} ${partner.row} · ${classOf(other, partner.row)}`));
  return made;
}

function partnerList(title, hint, other, partners, z) {
  const made = make("section"), cards = make("div", "cards");
  made.append(make("h3", "", title), make("p", "muted", hint));
  cards.append(...partners.map((partner) => partnerCard(other, partner, z)));
  made.append(partners.length ? cards : make("p", "", "There are none."));
  return made;
}

function partnersShown(set, row) {
  const other = set === train ? test : train, strongest = partnersOf(set, row, { random: false });
  if (!strongest) {
    const hint = "This file keeps no list of this example's influences. The command below finds them.";
    return [make("p", "muted", hint)];
  }
  const nRanked = set === train ? test.n : scored(), chosen = Math.max(1, strongest.length);
  const selected = selectedZ(facts.n_models, facts.alpha, chosen, nRanked);
  const found = strongest.filter(({ q }) => q <= FOUND).length;
  const named = set === train ? "Test examples that it helps most" : "Training examples that helped most to get it right";
  const level = `${+(facts.level * 100).toFixed(6)} %`;
  const random = partnersOf(set, row, { random: true });
  return [
    partnerList(named, `${level} selected intervals: the first ${strongest.length} of ${nRanked.toLocaleString("en")} ranked. `
      + (found === strongest.length ? "Chance explains none of them (q ≤ .1)."
        : `Chance explains those in grey (q > .1), ${strongest.length - found} of ${strongest.length}.`),
      other, strongest, selected),
    partnerList(`For comparison: random ${other.noun}s of class ${classOf(set, row)}`,
      `${level} anytime intervals: nobody chose these.`, other, random, anytimeZ(facts.n_models, facts.alpha)),
  ];
}

/** How many training examples have a score. */
function scored() {
  let n = 0;
  for (const value of train.memorization) n += !Number.isNaN(value);
  return n;
}

/** The commands that show the same. */
function commands(set, row) {
  const store = facts.store === "memdb.zarr" ? "" : ` --store ${quoted(facts.store)}`, id = `--${set.name}-id ${row}`;
  const lines = set === train ? [`memdb score ${id}${store}`] : [];
  lines.push(`memdb top-influence ${id} -k ${facts.shown}${store}`);
  const made = make("pre", "commands");
  made.append(...lines.flatMap((line) => [make("code", "", line), "\n"]));
  return made;
}

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
}

/** Put the page of an example into `root`. */
function showExample(root, set, row) {
  const title = make("h2", "", `${set === train ? "Training" : "Test"} example ${row}`);
  title.tabIndex = -1;
  title.append(make("span", "muted", ` class ${classOf(set, row)}`));
  const main = make("div", "figure"), said = make("div", "said");
  const picture = pictureOf(set, row, 160);
  if (picture) main.append(picture);
  if (set.keys) said.append(make("p", "key muted", keyOf(set, row)));
  if (!facts.n_models) said.append(make("p", "", "No models yet, so no scores. Train some: memdb train --add 100"));
  else if (set === train) {
    const z = anytimeZ(facts.n_models, facts.alpha);
    said.append(score("memorization", train.memorization[row], memorizationInterval(row, z), "anytime"));
    said.append(bars(armsOf(row)), make("p", "muted", "models that are right on it: with it in their subset, and without"));
    if (train.q[row] > FOUND) said.append(make("p", "muted", `Chance explains this score (q ${briefQ(train.q[row])}).`));
  } else {
    said.append(make("p", "score", `${test.nCorrect[row].toLocaleString("en")} of ${counted(facts.n_models, "model")} right`));
  }
  main.append(said);
  root.replaceChildren(title, main, ...(facts.n_models ? partnersShown(set, row) : []), commands(set, row));
  return title;
}
