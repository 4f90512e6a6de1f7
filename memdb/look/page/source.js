// Where the page's data come from: elements of its own file, a published copy, or a server on this machine.
"use strict";

const element = (id) => document.getElementById(id);

const KINDS = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };

/** What went wrong with data, in words for people; no number is shown instead. */
class Problem extends Error {}

class Altered extends Problem {
  constructor(path, how) {
    super(`${path} is not what was published: ${how}. Reload the page, or tell its owner.`);
  }
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

/** A report: everything is in the file as inert text. */
class FileSource {
  isWhole = true;

  async facts() {
    return JSON.parse(element("data/facts").textContent);
  }

  has(name) {
    return element(`data/${name}`) !== null;
  }

  async array(name) {
    const [kind, base64] = element(`data/${name}`).textContent.split(" ");
    return new KINDS[kind](bytesOf(base64).buffer);
  }

  /** Row `row` of an array whose rows have `width` numbers. */
  async row(name, row, width) {
    this.arrays ??= new Map();
    if (!this.arrays.has(name)) this.arrays.set(name, await this.array(name));
    return this.arrays.get(name).subarray(row * width, (row + 1) * width);
  }

  async keys(set) {
    return this.given?.[set] ?? (this.given = JSON.parse(element("data/keys").textContent))[set];
  }

  hasLists(set, row) {
    return set.owners.has(row);
  }

  async lists(set, row) {
    const width = facts.groups[set.name].length * facts.shown * 3;
    return { found: await this.row(`${set.name}/partners`, set.owners.get(row), width), strip: null };
  }

  async sheet(set, number) {
    return bytesOf(element(`data/${set.name}/sheet/${number}`).textContent);
  }
}

/** What sources that ask a server share: requests, each made once, and a line about those that take long. */
class Fetching {
  running = new Map(); // path: promise
  nBytes = 0;

  /** The bytes of an object as `read` takes them, asked for once. */
  get(path, read = async (data) => data) {
    if (!this.running.has(path)) {
      const asked = this.fetched(path, "default").then(read).catch((error) => {
        if (!(error instanceof Altered)) throw error;
        return this.fetched(path, "reload").then(read); // the browser may have kept another one
      });
      asked.catch(() => this.running.delete(path)); // another try may succeed
      this.running.set(path, asked);
    }
    return this.running.get(path);
  }

  async fetched(path, cache) {
    const slow = setTimeout(() => { element("waiting").textContent = `Loading ${path}, after ${Math.round(this.nBytes / 1000)} kB …`; }, 100);
    try {
      const answer = await fetch(new URL(path, this.root), { credentials: "omit", redirect: "error", cache });
      if (!answer.ok) throw new Problem(`${path}: the server answers ${answer.status} ${answer.statusText}. Reload the page, or tell its owner.`);
      const data = new Uint8Array(await answer.arrayBuffer());
      this.nBytes += data.length;
      return data;
    } catch (error) {
      if (error instanceof Problem) throw error;
      throw new Problem(`${path} cannot be loaded: ${error.message}. Is the server there, and does it allow this page to read (CORS)?`);
    } finally {
      clearTimeout(slow);
      element("waiting").textContent = "";
    }
  }
}

/** A published copy on any web server: arrays in chunks of gzip, every object checked by its sha256. */
class SiteSource extends Fetching {
  isWhole = false;

  constructor(site) {
    super();
    this.site = site;
    this.root = new URL(site.root, location.href.split(/[?#]/)[0]);
  }

  async facts() {
    const { folder, facts: info } = this.site;
    const text = new TextDecoder().decode(await this.unpacked(`${folder}/facts/c.0`, bytesOf(info.sha256)));
    this.described = JSON.parse(text.slice(0, info.length));
    return { ...this.described.facts, store: this.root.href.replace(/\/(index\.html)?$/, "") };
  }

  /** The bytes of an object, after a look at their sha256 where the browser can tell (https, localhost). */
  checked(path, sha256, read = async (data) => data) {
    return this.get(path, async (data) => {
      if (crypto.subtle) {
        const found = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
        if (found.some((byte, at) => byte !== sha256[at])) throw new Altered(path, "its sha256 is another");
      }
      return read(data);
    });
  }

  unpacked(path, sha256) {
    return this.checked(path, sha256, async (data) => {
      try {
        const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip")); // checks a crc32, too
        return new Uint8Array(await new Response(stream).arrayBuffer());
      } catch {
        throw new Altered(path, "it does not unpack");
      }
    });
  }

  sha256Of(text, number) {
    return bytesOf(text).subarray(32 * number, 32 * (number + 1));
  }

  async chunk(name, number) {
    const { kind, shape, rows, sha256 } = this.described.arrays[name];
    const path = `${this.site.folder}/${name}/c.${number}${".0".repeat(shape.length - 1)}`;
    const data = await this.unpacked(path, this.sha256Of(sha256, number));
    const expected = rows * (shape[1] ?? 1) * KINDS[kind].BYTES_PER_ELEMENT;
    if (data.length !== expected) throw new Altered(path, `it has ${data.length} bytes where ${expected} belong`);
    return new KINDS[kind](data.buffer);
  }

  has(name) {
    return name in this.described.arrays;
  }

  async array(name) {
    const { kind, shape, rows } = this.described.arrays[name], length = shape[0] * (shape[1] ?? 1);
    const numbers = Array.from({ length: Math.ceil(shape[0] / rows) }, (_, number) => number);
    const chunks = await Promise.all(numbers.map((number) => this.chunk(name, number)));
    const found = new KINDS[kind](length), step = rows * (shape[1] ?? 1);
    chunks.forEach((chunk, number) => found.set(chunk.subarray(0, Math.min(step, length - number * step)), number * step));
    return found;
  }

  async row(name, row, width) {
    const { rows } = this.described.arrays[name];
    const chunk = await this.chunk(name, Math.floor(row / rows));
    return chunk.subarray((row % rows) * width, ((row % rows) + 1) * width);
  }

  /** Whether the keys of a set come with the first view. */
  hasKeysAtOnce(set) {
    const { shape, rows } = this.described.arrays[`${set}/keys`];
    return shape[0] <= rows;
  }

  /** A sheet of pairs in their order: training and test example beside each other. */
  pairSheet(number) {
    const { sha256 } = this.described.arrays["pairs/sheets"];
    return this.checked(`${this.site.folder}/pairs/sheets/${number}`, this.sha256Of(sha256, number));
  }

  async key(set, row) {
    return textOf(await this.row(`${set}/keys`, row, this.described.arrays[`${set}/keys`].shape[1]));
  }

  async keys(set) {
    const all = await this.array(`${set}/keys`), [n, width] = this.described.arrays[`${set}/keys`].shape;
    return Array.from({ length: n }, (_, row) => textOf(all.subarray(row * width, (row + 1) * width)));
  }

  hasLists(set, row) {
    return set.owners.has(row);
  }

  async lists(set, row) {
    const place = set.owners.get(row), length = facts.groups[set.name].length * facts.shown * 3;
    const found = await this.row(`${set.name}/partners`, place, length + 8);
    const sha256 = new Uint8Array(found.slice(length).buffer);
    const path = `${this.site.folder}/${set.name}/strips/${row}`;
    const strip = set.picture ? () => this.checked(path, sha256) : null;
    return { found: found.subarray(0, length), strip };
  }

  sheet(set, number) {
    const { suffix, sha256 } = this.described.sheets[set.name];
    return this.checked(`sheets/${set.name}/${number}.${suffix}`, this.sha256Of(sha256, number));
  }
}

/** `memdb view`: a server on this machine that knows the store. */
class LiveSource extends Fetching {
  isWhole = false;

  constructor() {
    super();
    this.root = location.href.split("#")[0];
  }

  async facts() {
    const found = JSON.parse(new TextDecoder().decode(await this.get("facts")));
    this.kinds = found.kinds;
    return found.facts;
  }

  has(name) {
    return name in this.kinds;
  }

  async array(name) {
    return new KINDS[this.kinds[name]]((await this.get(`array/${name}`)).slice().buffer);
  }

  async row(name, row, width) {
    return (await this.array(name)).subarray(row * width, (row + 1) * width);
  }

  hasKeysAtOnce() {
    return true;
  }

  async keys(set) {
    this.given ??= JSON.parse(new TextDecoder().decode(await this.get("keys")));
    return this.given[set];
  }

  hasLists() {
    return facts.n_models > 0 && test.n > 0;
  }

  async lists(set, row) {
    const data = await this.get(`lists/${set.name}/${row}`);
    return { found: new Uint32Array(data.slice().buffer), strip: set.picture ? () => this.get(`strips/${set.name}/${row}`) : null };
  }

  sheet(set, number) {
    return this.get(`sheets/${set.name}/${number}`);
  }
}

function textOf(padded) {
  const end = padded.indexOf(0);
  return new TextDecoder().decode(end < 0 ? padded : padded.subarray(0, end));
}

/** Where this page's data are, or a Problem that says what to do. */
function sourceOf() {
  const kind = document.documentElement.dataset.source;
  if (kind === "file") return new FileSource();
  if (kind === "live") return new LiveSource();
  if (location.protocol === "file:") {
    throw new Problem("Browsers let a page on the disk read no other files, and this one reads the published copy beside it. "
      + "Serve that folder, with python -m http.server for example, and open the address that it prints; "
      + "or write one file that needs no server: memdb report --store FOLDER -o report.html");
  }
  if (!("DecompressionStream" in window)) {
    throw new Problem("This browser cannot unpack gzip (DecompressionStream), which browsers can since 2023. "
      + "Use a newer one, or write one file that needs none of it: memdb report --store URL -o report.html");
  }
  return new SiteSource(JSON.parse(element("data/site").textContent));
}
