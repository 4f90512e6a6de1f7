// Any pair of a published copy: the bits of its blocks are loaded whole and counted in a worker.
"use strict";

/** Runs in the worker: counts the ones that each row shares with one row, after a look at every crc32c. */
function counting() {
  const ones = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll("0", "").length);
  const crcs = Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    return crc;
  });
  /** The bytes of a chunk without the crc32c behind them, or null where it is another. */
  function checked(chunk) {
    const length = chunk.length - 4, expected = new DataView(chunk.buffer, chunk.byteOffset + length).getUint32(0, true);
    let crc = 0xffffffff;
    for (let at = 0; at < length; at++) crc = crcs[(crc ^ chunk[at]) & 255] ^ (crc >>> 8);
    return (crc ^ 0xffffffff) >>> 0 === expected ? chunk.subarray(0, length) : null;
  }
  onmessage = ({ data: { n, width, chunks, one, oneAt } }) => {
    const counts = new Uint32Array(n), oneChunk = checked(one);
    if (!oneChunk) return postMessage({ problem: true });
    const row = oneChunk.subarray(oneAt * width, (oneAt + 1) * width);
    for (const { first, rows, bytes } of chunks) {
      const chunk = checked(bytes);
      if (!chunk) return postMessage({ problem: true });
      for (let i = 0, at = 0; i < rows && first + i < n; i++) {
        let k = 0;
        for (let byte = 0; byte < width; byte++, at++) k += ones[chunk[at] & row[byte]];
        counts[first + i] = k;
      }
    }
    return postMessage({ counts }, [counts.buffer]);
  };
}

/** What counting all pairs of an example loads, in bytes. */
function costOf(set, row) {
  return facts.bits.reduce((sum, block) => {
    const [many, one] = set === test ? [block.mask, block.right] : [block.right, block.mask];
    return sum + many.sizes.reduce((all, size) => all + size, 0) + one.sizes[Math.floor(row / one.rows)];
  }, 0);
}

/** A button that counts all pairs of an example, where the source has bits. */
function anyPair(set, row) {
  if (!facts.bits) return [];
  const made = make("section"), button = make("button", "", `Count all its pairs here: loads ${(costOf(set, row) / 1e6).toFixed(1)} MB`);
  button.type = "button";
  made.append(button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await loaded(test);
      made.replaceChildren(...strongestOf(set, row, await pairCounts(set, row)));
    } catch (error) {
      button.disabled = false;
      complain(error);
    }
  });
  return [made];
}

/** The models that had a training example and are right on a test example: of all pairs of one example. */
async function pairCounts(set, row) {
  const n = set === test ? train.n : test.n, counts = new Uint32Array(n);
  const worker = new Worker(URL.createObjectURL(new Blob([`(${counting})()`], { type: "text/javascript" })));
  try {
    for (const block of facts.bits) {
      const [many, one] = set === test ? [block.mask, block.right] : [block.right, block.mask];
      const chunks = (await Promise.all(many.sizes.map((_, number) => chunksOf(block, many, number)))).flat();
      const those = await chunksOf(block, one, Math.floor(row / one.rows));
      const its = those.find(({ first, rows }) => row >= first && row < first + rows);
      const message = { n, width: Math.ceil(block.n_models / 8), chunks, one: its.bytes, oneAt: row - its.first };
      const answer = await new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = (event) => reject(new Problem(`counting failed: ${event.message}`));
        worker.postMessage(message);
      });
      if (answer.problem) throw new Problem(`${block.group} is not what was published: its bits have another crc32c. Reload the page, or tell its owner.`);
      answer.counts.forEach((k, at) => { counts[at] += k; });
    }
  } finally {
    worker.terminate();
  }
  return counts;
}

/** The chunks in an object of a block's array: itself, or those that a shard's index names. */
async function chunksOf(block, array, number) {
  const path = `${block.group}/${array.name}/c.${number}.0`;
  const bytes = await source.checked(path, source.sha256Of(array.sha256, number)), first = number * array.rows;
  if (!array.inner) return [{ first, rows: array.rows, bytes }];
  const n = array.rows / array.inner, index = new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 16 * n - 4), found = [];
  for (let i = 0; i < n; i++) {
    const [offset, size] = [0, 8].map((at) => Number(index.getBigUint64(16 * i + at, true)));
    if (offset + size <= bytes.length) { // others are absent: beyond the last row
      found.push({ first: first + i * array.inner, rows: array.inner, bytes: bytes.subarray(offset, offset + size) });
    }
  }
  return found;
}

/** The strongest pairs by influence itself: what it is shrunk to depends on chance among all of them. */
function strongestOf(set, row, counts) {
  const other = set === train ? test : train, partners = [];
  counts.forEach((k, partner) => {
    const [trainRow, onRow] = set === test ? [partner, row] : [row, partner];
    const arms = pairArms(trainRow, test, onRow, k), influence = scoreOf(...arms);
    if (!Number.isNaN(influence)) partners.push({ other, row: partner, trainRow, on: test, onRow, arms, influence, isChance: false });
  });
  const z = selectedZ(facts.n_models, facts.alpha, Math.min(facts.shown, partners.length) || 1, partners.length || 1);
  const hint = `${level()} selected intervals: the first ${facts.shown} of ${partners.length.toLocaleString("en")} by influence, which is not shrunk here.`;
  partners.sort((a, b) => b.influence - a.influence || a.row - b.row);
  const helps = partners.slice(0, facts.shown), hurts = partners.slice(-facts.shown).reverse();
  const [best, worst] = set === train ? ["Test examples that it helps most", "Test examples that it hurts most"]
    : ["Training examples that helped most to get it right", "Training examples that hurt it most"];
  const bare = (title, some) => {
    const list = make("ol", "plain");
    for (const partner of some) {
      const item = make("li"), link = make("a", "", `${other.name} ${partner.row}`);
      link.href = `#${other.name}=${partner.row}`;
      item.append(link, ` ${classOf(other, partner.row)} · ${brief(partner.influence, "+")} ${briefInterval(intervalOf(...partner.arms, z), "+")}`);
      list.append(item);
    }
    const made = make("section");
    made.append(make("h3", "", title), make("p", "muted", hint), list);
    return made;
  };
  return [bare(best, helps), bare(worst, hurts)];
}
