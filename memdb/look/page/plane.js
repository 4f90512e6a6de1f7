// The plane: each training example at (right when held out, right when in). A brush selects, arrow keys walk.
"use strict";

const CORNERS = [ // x and y of the corner, what lies there
  [0, 1, "memorized"], [1, 1, "easy"], [0, 0, "never learnt"], [1, 0, "hurts itself"],
];

class Plane {
  /** `onBrush(rectangle or null)`, `onOpen(row)` and `say(text)` are called with what somebody did. */
  constructor(canvas, { onBrush, onOpen, say }) {
    Object.assign(this, { canvas, onBrush, onOpen, say, brush: null, rows: [], cursor: -1, dragged: null });
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.end(event));
    canvas.addEventListener("pointercancel", () => { this.dragged = null; this.draw(); });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cursor = -1; this.draw(); });
  }

  /** Show the rows that are left in colour, all others in grey. */
  show(rows, brush) {
    this.rows = rows;
    this.brush = brush;
    this.draw();
  }

  get box() { // of the unit square, in CSS pixels
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return { left: 34, top: 22, width: w - 46, height: h - 58 };
  }

  at(x, y) {
    const { left, top, width, height } = this.box;
    return [left + x * width, top + (1 - y) * height];
  }

  valueAt(event) {
    const { left, top, width, height } = this.box, bounds = this.canvas.getBoundingClientRect();
    const clip = (value) => Math.max(0, Math.min(1, value));
    return [clip((event.clientX - bounds.left - left) / width), clip(1 - (event.clientY - bounds.top - top) / height)];
  }

  begin(event) {
    if (event.button) return;
    this.dragged = [this.valueAt(event), this.valueAt(event)];
    this.canvas.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.dragged) return;
    this.dragged[1] = this.valueAt(event);
    this.draw();
  }

  end() {
    if (!this.dragged) return;
    const [[x0, y0], [x1, y1]] = this.dragged;
    this.dragged = null;
    const { width, height } = this.box;
    if (Math.abs(x1 - x0) * width + Math.abs(y1 - y0) * height > 6) {
      this.onBrush([Math.min(x0, x1), Math.max(x0, x1), Math.min(y0, y1), Math.max(y0, y1)]);
    } else if (this.brush) {
      this.onBrush(null);
    } else {
      const row = this.nearest(x0, y0, () => true);
      if (row >= 0 && Math.hypot((train.pOut[row] - x0) * width, (train.pIn[row] - y0) * height) < 8) this.onOpen(row);
    }
  }

  nearest(x, y, allowed) {
    let best = -1, least = Infinity;
    for (const row of this.rows) {
      const dx = train.pOut[row] - x, dy = train.pIn[row] - y, distance = dx * dx + dy * dy;
      if (distance < least && allowed(dx, dy, row)) [best, least] = [row, distance];
    }
    return best;
  }

  key(event) {
    const ways = {
      ArrowLeft: (dx, dy) => dx < 0 && Math.abs(dy) <= -dx, ArrowRight: (dx, dy) => dx > 0 && Math.abs(dy) <= dx,
      ArrowDown: (dx, dy) => dy < 0 && Math.abs(dx) <= -dy, ArrowUp: (dx, dy) => dy > 0 && Math.abs(dx) <= dy,
    };
    if (event.key === "Escape" && this.brush) this.onBrush(null);
    else if (event.key === "Enter" && this.cursor >= 0) this.onOpen(this.cursor);
    else if (event.key in ways) {
      const from = this.cursor;
      const next = from < 0 ? this.nearest(0, 1, () => true)
        : this.nearest(train.pOut[from], train.pIn[from], ways[event.key]);
      if (next >= 0) {
        this.cursor = next;
        this.say(described(train, next));
        this.draw();
      }
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  draw() {
    const { canvas } = this, ratio = window.devicePixelRatio || 1;
    const { clientWidth: w, clientHeight: h } = canvas;
    if (!w) return;
    canvas.width = w * ratio;
    canvas.height = h * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(name).trim();
    pen.font = `12px ${style.fontFamily}`;
    this.drawFrame(pen, colour);
    this.drawPoints(pen, colour, ratio);
    this.drawMarks(pen, colour);
  }

  /** Draw the points as a density: canvas calls for each of 50,000 would be felt. */
  drawPoints(pen, colour, ratio) {
    const { width, height } = this.canvas, isLeft = new Uint8Array(train.n), size = Math.round((train.n > 5000 ? 2 : 3.5) * ratio);
    for (const row of this.rows) isLeft[row] = 1;
    const base = Math.max(0.1, Math.min(0.8, 6 / Math.sqrt(train.n / 20))), { left, top, width: w, height: h } = this.box;
    for (const wanted of [0, 1]) {
      const times = new Uint8Array(width * height);
      for (let row = 0; row < train.n; row++) {
        if (isLeft[row] !== wanted || Number.isNaN(train.memorization[row])) continue;
        const x = Math.round((left + train.pOut[row] * w) * ratio - size / 2);
        const y = Math.round((top + (1 - train.pIn[row]) * h) * ratio - size / 2);
        for (let down = 0; down < size; down++) {
          for (let at = (y + down) * width + x, end = at + size; at < end; at++) if (times[at] < 255) times[at]++;
        }
      }
      const layer = document.createElement("canvas"), alpha = base * (wanted ? 1 : 0.35);
      [layer.width, layer.height] = [width, height];
      const brush = layer.getContext("2d"), image = brush.createImageData(width, height);
      times.forEach((n, at) => { if (n) image.data[4 * at + 3] = 255 * (1 - (1 - alpha) ** n); });
      brush.putImageData(image, 0, 0);
      brush.globalCompositeOperation = "source-in";
      brush.fillStyle = colour(wanted ? "--in" : "--muted");
      brush.fillRect(0, 0, width, height);
      pen.drawImage(layer, 0, 0, width / ratio, height / ratio);
    }
  }

  drawFrame(pen, colour) {
    const line = (x0, y0, x1, y1) => {
      pen.beginPath();
      pen.moveTo(...this.at(x0, y0));
      pen.lineTo(...this.at(x1, y1));
      pen.stroke();
    };
    pen.strokeStyle = colour("--line");
    line(0, 0, 1, 0); line(0, 0, 0, 1); line(1, 0, 1, 1); line(0, 1, 1, 1);
    line(0, 0, 1, 1);
    pen.setLineDash([3, 3]);
    line(0, 0.25, 0.75, 1);
    pen.setLineDash([]);
    pen.fillStyle = colour("--muted");
    const { left, top, width, height } = this.box, bottom = top + height;
    pen.textAlign = "center";
    pen.fillText("right when held out →", left + width / 2, bottom + 32);
    for (const value of [0, 0.5, 1]) {
      pen.fillText(String(value).replace("0.", "."), left + value * width, bottom + 15);
    }
    pen.textAlign = "right";
    for (const value of [0, 0.5, 1]) {
      pen.fillText(String(value).replace("0.", "."), left - 6, top + (1 - value) * height + 4);
    }
    pen.textAlign = "left";
    pen.fillText("↑ right when in", left, top - 8);
    const [x, y] = this.at(0.5, 0.75);
    pen.save();
    pen.translate(x, y);
    pen.rotate(-Math.atan2(height, width));
    pen.textAlign = "center";
    pen.fillText("memorization .25", 0, -5);
    pen.restore();
  }

  drawMarks(pen, colour) {
    pen.font = `600 12px ${getComputedStyle(this.canvas).fontFamily}`;
    pen.lineWidth = 4;
    pen.lineJoin = "round";
    pen.strokeStyle = colour("--ground");
    pen.fillStyle = colour("--text");
    for (const [x, y, text] of CORNERS) {
      const [left, top] = this.at(x, y);
      pen.textAlign = x ? "right" : "left";
      const place = [left + (x ? -8 : 8), top + (y ? 20 : -10)];
      pen.strokeText(text, ...place);
      pen.fillText(text, ...place);
    }
    pen.lineWidth = 1.5;
    const dragged = this.dragged;
    const brush = dragged ? [dragged[0][0], dragged[1][0], dragged[0][1], dragged[1][1]] : this.brush;
    if (brush) {
      const [x0, y0] = this.at(brush[0], brush[2]), [x1, y1] = this.at(brush[1], brush[3]);
      pen.strokeStyle = colour("--text");
      pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    if (this.cursor >= 0) {
      pen.strokeStyle = colour("--out");
      pen.lineWidth = 2;
      pen.beginPath();
      pen.arc(...this.at(train.pOut[this.cursor], train.pIn[this.cursor]), 7, 0, 2 * Math.PI);
      pen.stroke();
    }
  }
}

/** How many scores lie in which tenth of a half, as bars; a brush or two numbers choose between them. */
class Histogram {
  constructor(canvas, onRange) {
    Object.assign(this, { canvas, onRange, range: null, dragged: null });
    canvas.addEventListener("pointerdown", (event) => {
      this.dragged = [this.valueAt(event), this.valueAt(event)];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.dragged) { this.dragged[1] = this.valueAt(event); this.draw(); }
    });
    canvas.addEventListener("pointerup", () => {
      if (!this.dragged) return;
      const [a, b] = this.dragged.sort((x, y) => x - y);
      this.dragged = null;
      this.onRange(b - a < this.step / 4 ? null : [Math.round(a * 100) / 100, Math.round(b * 100) / 100]);
    });
    this.step = 0.05;
    let least = 0, most = 0;
    for (const value of train.memorization) { if (value < least) least = value; if (value > most) most = value; }
    this.first = Math.floor(least / this.step);
    this.bars = new Uint32Array(Math.max(1, Math.floor(most / this.step) - this.first + 1));
    for (const value of train.memorization) {
      if (!Number.isNaN(value)) this.bars[Math.floor(value / this.step) - this.first]++;
    }
  }

  valueAt(event) {
    const bounds = this.canvas.getBoundingClientRect();
    const share = Math.max(0, Math.min(1, (event.clientX - bounds.left) / bounds.width));
    return (this.first + share * this.bars.length) * this.step;
  }

  show(range) {
    this.range = range;
    this.draw();
  }

  draw() {
    const { canvas } = this, ratio = window.devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
    if (!w) return;
    canvas.width = w * ratio;
    canvas.height = h * ratio;
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas), width = w / this.bars.length;
    pen.scale(ratio, ratio);
    const range = this.dragged ? [...this.dragged].sort((x, y) => x - y) : this.range;
    const tallest = Math.log1p(Math.max(...this.bars, 1));
    this.bars.forEach((n, bar) => {
      const from = (this.first + bar) * this.step, height = (Math.log1p(n) / tallest) * (h - 2);
      const isIn = !range || (from + this.step > range[0] && from < range[1]);
      pen.fillStyle = style.getPropertyValue(isIn ? "--in" : "--line");
      pen.fillRect(bar * width + 0.5, h - height, width - 1, height);
    });
  }
}
