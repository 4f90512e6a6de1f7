// A list of any length of which some 40 rows are in the document: one tab stop, arrow keys, sorting by its heads.
"use strict";

const ROW_HEIGHT = 44; // pixels, unless the element says otherwise
const HEAD_HEIGHT = 36;
const TALLEST = 8e6; // pixels that every browser can scroll through
const SPARE = 8; // rows drawn above and below what is seen

class Grid {
  /** `root`, which has an id, gets the list; `onOpen(row)` and `onSort(column id)` are called with what somebody chose. */
  constructor(root, { onOpen, onSort }) {
    Object.assign(this, { root, onOpen, onSort, rows: [], columns: [], active: { place: 0, column: 0 } });
    this.rowHeight = Number(root.dataset.rowHeight ?? ROW_HEIGHT);
    root.style.setProperty("--row-height", `${this.rowHeight}px`);
    this.head = make("div", "row head");
    this.head.setAttribute("role", "row");
    this.head.setAttribute("aria-rowindex", "1");
    this.body = make("div", "rows");
    this.body.setAttribute("role", "presentation");
    this.space = make("div", "space");
    this.space.setAttribute("role", "rowgroup");
    this.body.append(this.space);
    root.append(this.head, this.body);
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("focus", () => this.draw());
    root.addEventListener("blur", () => this.draw());
    root.addEventListener("click", (event) => this.click(event));
    root.addEventListener("scroll", () => this.draw(), { passive: true }); // its head sticks
    new ResizeObserver(() => this.draw()).observe(root);
  }

  /** Show these rows of a set in their order. */
  show(set, rows, columns, sort) {
    const isOther = this.set !== set;
    Object.assign(this, { set, rows, columns, sort });
    this.root.setAttribute("aria-rowcount", rows.length + 1);
    this.root.setAttribute("aria-colcount", columns.length);
    const height = rows.length * this.rowHeight;
    this.space.style.height = `${Math.min(height, TALLEST)}px`;
    this.stretch = Math.max(1, height / TALLEST);
    this.active.place = Math.min(isOther ? 0 : this.active.place, Math.max(0, rows.length - 1));
    this.drawHead();
    this.draw();
  }

  /** Go to the first row. */
  toTop() {
    this.active.place = Math.min(0, this.active.place); // a head stays the active one
    this.root.scrollTop = 0;
    this.draw();
  }

  /** Make the row of an example the active one, where it is in the list. */
  goTo(row) {
    const place = this.rows.indexOf(row);
    if (place >= 0) this.activate(place, this.active.column);
  }

  drawHead() {
    this.head.replaceChildren(...this.columns.map((column, number) => {
      const cell = make("div", `cell ${column.id} ${column.kind ?? ""}`, column.title);
      cell.id = `${this.root.id}-head-${number}`;
      cell.title = column.hint ?? "";
      cell.dataset.column = column.id;
      cell.setAttribute("role", "columnheader");
      cell.setAttribute("aria-colindex", number + 1);
      if (column.value) {
        const way = this.sort.column !== column.id ? "none" : this.sort.descending ? "descending" : "ascending";
        cell.setAttribute("aria-sort", way);
      }
      return cell;
    }));
  }

  draw() {
    const { scrollTop, clientHeight } = this.root;
    const n = Math.ceil(clientHeight / this.rowHeight) + 2 * SPARE;
    const top = Math.max(0, Math.floor((scrollTop * this.stretch) / this.rowHeight) - SPARE);
    const offset = this.stretch > 1 ? Math.max(0, scrollTop - SPARE * this.rowHeight) : top * this.rowHeight;
    const drawn = this.rows.slice(top, top + n).map((row, i) => this.drawRow(row, top + i, offset + i * this.rowHeight));
    this.space.replaceChildren(...drawn);
    const hasFocus = document.activeElement === this.root, { place, column } = this.active;
    for (const cell of this.head.children) cell.classList.remove("active");
    const id = place < 0 ? `${this.root.id}-head-${column}` : `${this.root.id}-cell-${place}-${column}`;
    const active = element(id);
    this.root.setAttribute("aria-activedescendant", active ? id : "");
    if (active && hasFocus) active.classList.add("active");
  }

  drawRow(row, place, top) {
    const made = make("div", this.columns.isFaint?.(row) ? "row faint" : "row");
    made.setAttribute("role", "row");
    made.setAttribute("aria-rowindex", place + 2);
    made.dataset.row = row;
    made.style.transform = `translateY(${top}px)`;
    if (place === this.active.place) made.setAttribute("aria-selected", "true");
    made.append(...this.columns.map((column, number) => {
      const cell = make("div", `cell ${column.id} ${column.kind ?? ""}`), shown = column.cell(row);
      cell.id = `${this.root.id}-cell-${place}-${number}`;
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-colindex", number + 1);
      if (shown !== null) cell.append(shown);
      if (typeof shown === "string" && column.kind === "words") cell.title = shown;
      return cell;
    }));
    return made;
  }

  click(event) {
    const head = event.target.closest(".head .cell"), row = event.target.closest(".rows .row");
    if (head && this.columns.find(({ id }) => id === head.dataset.column).value) this.onSort(head.dataset.column);
    if (row) this.onOpen(Number(row.dataset.row));
  }

  key(event) {
    if (event.altKey || event.metaKey) return;
    const { place, column } = this.active, page = Math.max(1, Math.floor((this.root.clientHeight - HEAD_HEIGHT) / this.rowHeight) - 1);
    const last = this.rows.length - 1;
    const moves = {
      ArrowDown: [place + 1, column], ArrowUp: [place - 1, column],
      ArrowLeft: [place, column - 1], ArrowRight: [place, column + 1],
      PageDown: [place + page, column], PageUp: [Math.max(0, place - page), column],
      Home: event.ctrlKey ? [0, 0] : [place, 0],
      End: event.ctrlKey ? [last, column] : [place, this.columns.length - 1],
    };
    if (event.key in moves) this.activate(...moves[event.key]);
    else if (event.key === "Enter" || event.key === " ") {
      if (place >= 0 && this.rows.length) this.onOpen(this.rows[place]);
      else if (this.columns[column].value) this.onSort(this.columns[column].id);
    } else return;
    event.preventDefault();
  }

  activate(place, column) {
    this.active = {
      place: Math.max(-1, Math.min(this.rows.length - 1, place)),
      column: Math.max(0, Math.min(this.columns.length - 1, column)),
    };
    const top = (this.active.place * this.rowHeight) / this.stretch, { scrollTop } = this.root;
    const height = this.root.clientHeight - HEAD_HEIGHT;
    if (this.active.place >= 0 && top < scrollTop) this.root.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + height) this.root.scrollTop = top + this.rowHeight - height;
    this.draw();
  }
}
