// The page's state: one recorded state of one layer, with its numbers, its curves and the selected node.

const by = id => document.getElementById(id);
const grouped = number => number.toLocaleString("en");

// Up to MAX_ALL edges all are drawn at first, of more the strongest NUM_STRONGEST, which can be distinguished.
const MAX_ALL = 2000, NUM_STRONGEST = 1500;

function hexToColour(hex) {
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255);
}

class Panel {
  constructor(head, states) {
    Object.assign(this, { head, states, s: states.length - 1, chosen: -1, held: -1, cell: null, timer: null });
    this.places = head.layers.map(placeNodes);
    this.scene = new Scene(by("wiring"), head.bulge);
    this.matrix = new Matrix(this.scene);
    this.isMatrix = false;
    by("title").textContent = head.title;
    by("slider").max = states.length - 1;
    const totals = head.states.at(-1).layers.map(({ total }) => total);
    head.layers.forEach(({ name }, l) => by("layer").add(new Option(`${name}: ${grouped(totals[l])} edges`, l)));
    by("layers").hidden = head.layers.length < 2;
    this.readStyle();
    listen(this);
    this.openLayer(totals.indexOf(Math.max(...totals)));
  }

  openLayer(l) {
    Object.assign(this, { l, chosen: -1, held: -1, cell: null });
    by("layer").value = l;
    this.isLarge = Math.max(...this.states.map(state => state.layers[l].codes.length)) > MAX_ALL;
    by("all").hidden = !this.isLarge;
    this.labelAxes();
    this.setMost(this.isLarge ? NUM_STRONGEST : Infinity);
    this.show(this.s);
  }

  // Draws the `most` strongest edges, or all, and sets the slider.
  limit(most) {
    this.setMost(most);
    this.draw();
  }

  setMost(most) {
    const fraction = Math.min(1, most / Math.max(1, this.state.codes.length));
    by("strength").value = Math.round(100 * fraction ** (1 / this.slope));
    this.most = most;
  }

  // Per cent of the edges; of many edges by the third power, so that small numbers can be set.
  followSlider() {
    const value = Number(by("strength").value), { slope } = this;
    this.most = value < 100 ? Math.ceil(this.state.codes.length * value ** slope / 100 ** slope) : Infinity;
    this.draw();
  }

  get slope() { return this.isLarge ? 3 : 1; }

  toggleAll() {
    if (this.isLarge && !this.isMatrix) this.limit(this.most === Infinity ? NUM_STRONGEST : Infinity);
  }

  toggleMatrix() {
    Object.assign(this, { isMatrix: !this.isMatrix, chosen: -1, held: -1, cell: null });
    this.labelAxes();
    this.draw();
  }

  get layer() { return this.head.layers[this.l]; }

  get state() { return this.states[this.s].layers[this.l]; }

  // The node whose edges are shown: the held one, or else the one at the pointer; −1: none.
  get selectedNode() { return this.held >= 0 ? this.held : this.chosen; }

  readStyle() {
    const css = getComputedStyle(document.documentElement);
    const read = name => css.getPropertyValue(`--${name}`).trim();
    const names = ["paper", "ink", "faint", "line", "plus", "minus", "fresh", "live", "dead", "share"];
    this.style = Object.fromEntries(names.map(name => [name, read(name)]));
    this.colours = Object.fromEntries(names.map(name => [name, hexToColour(this.style[name])]));
  }

  show(s) {
    this.s = Math.min(Math.max(s, 0), this.states.length - 1);
    const { numbers } = this.states[this.s], { state } = this;
    const epoch = `epoch ${Number.isInteger(numbers.epoch) ? numbers.epoch : numbers.epoch.toFixed(2)}`;
    by("slider").value = this.s;
    by("step").textContent = `step ${grouped(numbers.step)}, ${epoch}`;
    by("slider").setAttribute("aria-valuetext", by("step").textContent);
    by("numbers").textContent =
      `${grouped(state.codes.length)} edges${this.unread(state)}, ${grouped(state.numFresh)} new and `
      + `${grouped(state.numRemoved)} removed since the previous state; `
      + `${grouped(state.numLive)} of ${grouped(this.layer.sources)} nodes live; ${this.accuracies()}`;
    this.draw();
    this.charts = drawCharts(this.head, this.states, this.l, this.s, this.style);
  }

  // Training accuracy is that of the batches since the previous recorded state, which may not be in the page.
  accuracies() {
    const { numbers, since } = { since: null, ...this.head.states[this.s] };
    const percent = value => value === undefined ? "–" : `${value.toFixed(1)} %`;
    const over = since === null ? "" : ` (steps ${grouped(since + 1)} to ${grouped(numbers.step)})`;
    return `training accuracy ${percent(numbers.train_accuracy)}${over}, `
      + `validation ${percent(numbers.val_accuracy)}`;
  }

  // Edges in use that the forward pass never reads are not drawn.
  unread(state) {
    const count = this.head.states[this.s].layers[this.l].total - state.codes.length;
    return count ? ` (and ${grouped(count)} that are never read)` : "";
  }

  draw() {
    if (this.isMatrix) this.drawMatrix(); else this.drawGraph();
    document.body.dataset.drawn = `${this.s}`;
  }

  drawGraph() {
    const { layer, state, most, colours, style } = this, all = state.codes.length;
    const drawn = this.scene.draw({
      layer, places: this.places[this.l], state, most, showFresh: by("fresh").checked, chosen: this.selectedNode,
      colours, style,
    });
    by("shown").textContent = `${grouped(drawn)} of ${grouped(all)} edges shown`;
    by("all").textContent = most === Infinity ? `strongest ${grouped(NUM_STRONGEST)}` : "all edges";
    this.drawTip();
  }

  drawMatrix() {
    const { layer, state, colours, style, cell, matrix } = this, kind = by("kind").value;
    const states = this.states.map(({ layers }) => layers[this.l]);
    matrix.draw({ layer, states, state, kind, cell, colours, style });
    by("highest").textContent = (matrix.highest < 1 || kind === "weight" ? "≥ " : "")
      + (kind === "share" ? percent(matrix.highest) : short(matrix.highest));
    const tip = by("tip");
    tip.hidden = cell === null;
    if (!cell) return;
    tip.textContent = matrix.describe(...cell, state);
    const { to: x } = matrix.columns.bins[cell[1]], { to: y } = matrix.rows.bins[cell[0]];
    this.placeTip(x, y);
  }

  drawTip() {
    const node = this.selectedNode, tip = by("tip"), { layer, state } = this;
    tip.hidden = node < 0;
    if (node < 0) return;
    let into = 0, out = 0;
    state.codes.forEach(code => {
      if (code % layer.nodes === node) out++;
      if (Math.floor(code / layer.nodes) === node) into++;
    });
    const name = node < layer.sources ? `node ${node}` : `output ${node - layer.sources}`;
    const dead = node < layer.sources && !state.live[node] ? ", dead" : "";
    tip.textContent = `${name}${dead}: ${into} edges in, ${out} out${this.held === node ? "; held" : ""}`;
    const { clientWidth, clientHeight } = by("wiring"), { x, y } = this.places[this.l];
    this.placeTip(x[node] * clientWidth, y[node] * clientHeight);
  }

  // Right of a position in the picture; left of it where the picture ends.
  placeTip(x, y) {
    const { clientWidth, clientHeight } = by("wiring"), tip = by("tip");
    tip.style.left = "0px";
    const { offsetWidth: width, offsetHeight: height } = tip, right = x + 14;
    tip.style.left = `${right + width <= clientWidth ? right : Math.max(0, x - 14 - width)}px`;
    tip.style.top = `${y + 10 + height <= clientHeight ? y + 10 : Math.max(0, y - 10 - height)}px`;
  }

  // Labels of the columns below the picture; of a matrix also of the rows and of both axes.
  labelAxes() {
    const { layer, matrix, isMatrix } = this;
    document.body.classList.toggle("matrix", isMatrix);
    by("view").textContent = isMatrix ? "graph view" : "matrix view";
    if (isMatrix) matrix.fit(layer);
    const middle = ({ from, to }) => `${(from + to) / 2}px`;
    const columns = isMatrix ? matrix.columns.groups : layer.columns, rows = isMatrix ? matrix.rows.groups : [];
    const left = column => isMatrix ? middle(column) : `${100 * onCanvas(column.x)}%`;
    addLabels("columns", columns, (label, column) => { label.style.left = left(column); });
    addLabels("rows", rows, (label, row) => { label.style.top = middle(row); });
  }

  choose(node) {
    if (node === this.chosen) return;
    this.chosen = node;
    if (this.held < 0) this.draw();
  }

  chooseCell(cell) {
    if (`${cell}` === `${this.cell}`) return;
    this.cell = cell;
    this.draw();
  }

  // Selects a node by keys; a held one is released.
  pick(node) {
    Object.assign(this, { chosen: node, held: -1 });
    this.draw();
  }

  hold(node) {
    this.held = node === this.held ? -1 : node;
    this.draw();
  }

  play(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => {
      if (this.s + 1 >= this.states.length) this.play(false); else this.show(this.s + 1);
    }, Math.max(60, Math.min(600, 12000 / this.states.length))) : null;
    by("play").textContent = on ? "⏸" : "▶";
    by("play").setAttribute("aria-label", on ? "Pause" : "Play");
    by("numbers").setAttribute("aria-live", on ? "off" : "polite");
  }

  toggle() {
    if (!this.timer && this.s + 1 >= this.states.length) this.show(0);
    this.play(!this.timer);
  }

  // Shows a state that the user selected; playing ends.
  go(s) {
    this.play(false);
    this.show(s);
  }
}

// Of labels that would overlap, that of the larger group is drawn.
function addLabels(id, groups, put) {
  const size = ({ from = 0, to = 0 }) => to - from, boxes = [];
  by(id).replaceChildren();
  for (const group of [...groups].sort((a, b) => size(b) - size(a))) {
    const label = document.createElement("span");
    label.textContent = group.label;
    put(label, group);
    by(id).append(label);
    const box = label.getBoundingClientRect();
    const overlaps = other => box.left < other.right + 4 && other.left < box.right + 4
      && box.top < other.bottom && other.top < box.bottom;
    if (boxes.some(overlaps)) label.remove(); else boxes.push(box);
  }
}

(async () => {
  try {
    const head = JSON.parse(by("head").textContent);
    window.panel = new Panel(head, readStates(head, await unpack(by("blob").textContent.trim())));
  } catch (error) {
    by("failure").hidden = false;
    by("failure").textContent = `The wiring cannot be shown: ${error.message}`;
    throw error;
  }
})();
