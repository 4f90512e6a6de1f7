// What examples look like, 64 to a sheet: a sheet is loaded and decoded when one of its examples is first seen.
"use strict";

const WORDS = "application/json"; // the type of sheets of examples that are text
const LONGEST_WORDS = 2000; // characters of an example
const sheetsSeen = new Map(); // id: promise of a Blob's address, or of a list of texts

function sheetSeen(id, bytes, type) {
  if (!sheetsSeen.has(id)) {
    const made = bytes().then((data) => (type === WORDS ? textsOf(data) : URL.createObjectURL(new Blob([data], { type }))));
    made.catch((error) => { sheetsSeen.delete(id); complain(error); });
    sheetsSeen.set(id, made);
  }
  return sheetsSeen.get(id);
}

/** The texts on a sheet, as long as sheets have them: somebody else may have written it. */
function textsOf(data) {
  let found = null;
  try {
    found = JSON.parse(new TextDecoder().decode(data));
  } catch { /* said below */ }
  if (!Array.isArray(found) || !found.every((text) => typeof text === "string")) {
    throw new Problem("A sheet of words is not a list of texts. Tell the owner of this copy.");
  }
  return found.map((text) => text.slice(0, LONGEST_WORDS));
}

/** An example and all its partners, in the order of its lists. */
function stripSeen(set, row, bytes) {
  return sheetSeen(`${set.name}/strip/${row}`, bytes, set.picture.mime);
}

/** What an example looks like, `size` pixels at most, or null where that is unknown; from its sheet or a strip. */
function pictureOf(set, row, size, { hidden = false, strip = null, tile = 0 } = {}) {
  const place = set.picture ? set.picturedAt[row] : -1;
  if (!set.picture || (place < 0 && !strip)) return null;
  const { tiles, mime } = set.picture, at = strip ? tile : place % tiles;
  const made = mime === WORDS ? make("span", `prose ${size > 100 ? "whole" : size > 40 ? "some" : "line"}`) : tileOf(set, size, at);
  if (mime === WORDS) made.dir = "auto";
  else if (hidden) made.setAttribute("aria-hidden", "true");
  else {
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", described(set, row));
  }
  const number = Math.floor(place / tiles);
  const sheet = strip ?? sheetSeen(`${set.name}/sheet/${number}`, () => source.sheet(set, number), mime);
  sheet.then((found) => {
    if (mime === WORDS) made.textContent = made.title = found[at] || "(empty)";
    else made.style.backgroundImage = `url(${found})`;
  }, () => made.classList.add("lost"));
  return made;
}

/** An element as large as a picture, that shows its tile of a sheet. */
function tileOf(set, size, at) {
  const { height, width, tile_height, tile_width, columns } = set.picture, longest = Math.max(height, width);
  const scale = size >= longest ? Math.floor(size / longest) : size / longest;
  const made = make("span", scale >= 1 ? "picture pixels" : "picture");
  made.style.width = `${width * scale}px`;
  made.style.height = `${height * scale}px`;
  made.style.backgroundSize = `${columns * tile_width * scale}px auto`;
  made.style.backgroundPosition =
    `${-(at % columns) * tile_width * scale}px ${-Math.floor(at / columns) * tile_height * scale}px`;
  return made;
}

/** The column of a list that shows its examples. */
function pictureColumn(set, cell) {
  return { id: set.picture.mime === WORDS ? "prose" : "picture", title: "", cell };
}
