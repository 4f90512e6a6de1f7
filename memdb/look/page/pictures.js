// Pictures of examples, 64 to a sheet: a sheet is loaded and decoded when one of its pictures is first seen.
"use strict";

const sheetUrls = new Map(); // id: promise of a Blob's address

function blobUrl(id, bytes, type) {
  if (!sheetUrls.has(id)) {
    const made = bytes().then((data) => URL.createObjectURL(new Blob([data], { type })));
    made.catch((error) => { sheetUrls.delete(id); complain(error); });
    sheetUrls.set(id, made);
  }
  return sheetUrls.get(id);
}

function sheetUrl(set, number) {
  return blobUrl(`${set.name}/sheet/${number}`, () => source.sheet(set, number), set.picture.mime);
}

/** The pictures of an example and all its partners, in the order of its lists. */
function stripUrl(set, row, bytes) {
  return blobUrl(`${set.name}/strip/${row}`, bytes, set.picture.mime);
}

/** The picture of an example, `size` pixels at most, or null where there is none; from its sheet or a strip. */
function pictureOf(set, row, size, { hidden = false, strip = null, tile = 0 } = {}) {
  const place = set.picture ? set.picturedAt[row] : -1;
  if (!set.picture || (place < 0 && !strip)) return null;
  const { height, width, tile_height, tile_width, columns, tiles } = set.picture;
  const longest = Math.max(height, width);
  const scale = size >= longest ? Math.floor(size / longest) : size / longest;
  const made = make("span", scale >= 1 ? "picture pixels" : "picture");
  if (hidden) made.setAttribute("aria-hidden", "true");
  else {
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", described(set, row));
  }
  const at = strip ? tile : place % tiles;
  made.style.width = `${width * scale}px`;
  made.style.height = `${height * scale}px`;
  made.style.backgroundSize = `${columns * tile_width * scale}px auto`;
  made.style.backgroundPosition =
    `${-(at % columns) * tile_width * scale}px ${-Math.floor(at / columns) * tile_height * scale}px`;
  const show = (url) => { made.style.backgroundImage = `url(${url})`; };
  (strip ?? sheetUrl(set, Math.floor(place / tiles))).then(show, () => made.classList.add("lost"));
  return made;
}
