// The layer as a matrix: targets from top to bottom, sources from left to right, a few nodes to a bin where
// there are more of them than the picture has room for.

const BIN = 4, THINNEST = 10, MARGIN = { left: 84, right: 14, top: 8, bottom: 4 };

class Matrix {
  constructor(scene) { Object.assign(this, { scene, key: "" }); }

  // view: {layer, states, state, kind, cell, colours, style}; kind: "share" of the pairs of nodes that are in
  // use, or "weight", summed without sign; cell: [row, column] of the bin that is looked at, or null.
  draw({ layer, states, state, kind, cell, colours, style }) {
    const ratio = this.scene.resize(2), { pen, image, canvas } = this.scene;
    this.fit(layer);
    const { rows, columns } = this, pixels = new Uint32Array(image.data.buffer);
    this.sums = this.sum(state);
    this.highest = this.tops[kind] ??= this.findTop(kind, [states[0], states.at(-1)]);
    pixels.fill(pack(...colours.paper));
    for (let r = 0; r < rows.bins.length; r++) for (let c = 0; c < columns.bins.length; c++) {
      const colour = this.colourOf(r, c, kind, colours);
      if (colour !== null) fillBin(pixels, canvas.width, ratio, rows.bins[r], columns.bins[c], colour);
    }
    pen.putImageData(image, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawFrame(pen, style.line);
    if (cell) this.mark(pen, rows.bins[cell[0]], columns.bins[cell[1]], style);
    pen.setTransform(1, 0, 0, 1, 0, 0);
  }

  // Divides both axes into bins, if layer or size are new.
  fit(layer) {
    const { clientWidth: width, clientHeight: height } = this.scene.canvas, { left, right, top, bottom } = MARGIN;
    const key = [layer.name, width, height].join();
    if (key === this.key) return;
    const targets = layer.columns.filter((_, number) => !layer.acyclic || number > 0);
    const sources = layer.columns.filter(column => column.end <= layer.sources);
    const rows = divide(targets, top, height - top - bottom, layer.nodes);
    const columns = divide(sources, left, width - left - right, layer.nodes);
    Object.assign(this, { key, layer, rows, columns, tops: {} });
  }

  // Of each bin, row by row: edges in use, those between live nodes, and the sum of the weights without sign.
  sum({ codes, weights, live }) {
    const { layer, rows, columns } = this, size = rows.bins.length * columns.bins.length;
    const counts = new Uint32Array(size), alive = new Uint32Array(size), weight = new Float32Array(size);
    const isLive = liveNodes(layer, live);
    for (let i = 0; i < codes.length; i++) {
      const target = Math.floor(codes[i] / layer.nodes), source = codes[i] % layer.nodes;
      const bin = rows.binOf[target] * columns.bins.length + columns.binOf[source];
      counts[bin]++;
      weight[bin] += Math.abs(valueOf(weights[i]));
      if (isLive[target] && isLive[source]) alive[bin]++;
    }
    return { counts, alive, weight };
  }

  // Pairs of a target and a source in a bin.
  pairs(r, c) {
    const row = this.rows.bins[r], column = this.columns.bins[c];
    return (row.end - row.start) * (column.end - column.start);
  }

  valueOf({ counts, weight }, r, c, kind) {
    const bin = r * this.columns.bins.length + c;
    return kind === "share" ? counts[bin] / this.pairs(r, c) : weight[bin];
  }

  // The value that has the full colour: all but the highest hundredth of the bins with an edge are below it.
  findTop(kind, states) {
    const { rows, columns } = this, found = [];
    for (const sums of states.map(state => this.sum(state)))
      for (let r = 0; r < rows.bins.length; r++) for (let c = 0; c < columns.bins.length; c++)
        if (sums.counts[r * columns.bins.length + c]) found.push(this.valueOf(sums, r, c, kind));
    found.sort((a, b) => a - b);
    return found.length ? found[Math.floor(0.99 * (found.length - 1))] || 1 : 1;
  }

  // Where no edge can be: within a block, or back.
  isBarred(r, c) {
    const row = this.rows.bins[r].group, column = this.columns.bins[c].group, { acyclic, sources } = this.layer;
    return acyclic && row.end <= sources && row.start <= column.start;
  }

  // null: empty. The fewer of its edges are between live nodes, the nearer a bin is to the colour of dead ones.
  colourOf(r, c, kind, { paper, share, dead, line }) {
    const bin = r * this.columns.bins.length + c, { counts, alive } = this.sums;
    if (!counts[bin]) return this.isBarred(r, c) ? pack(...mix(paper, line, BARRED)) : null;
    const full = mix(dead, share, alive[bin] / counts[bin]);
    const part = Math.min(1, this.valueOf(this.sums, r, c, kind) / this.highest);
    return pack(...mix(paper, full, FAINTEST + (1 - FAINTEST) * part));
  }

  drawFrame(pen, colour) {
    const { rows, columns } = this, [left, right] = extent(columns), [top, bottom] = extent(rows);
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.strokeRect(left - 0.5, top - 0.5, right - left + 1, bottom - top + 1);
    pen.beginPath();
    for (const { from } of rows.groups.slice(1)) { pen.moveTo(left, from - 0.5); pen.lineTo(right, from - 0.5); }
    for (const { from } of columns.groups.slice(1)) { pen.moveTo(from - 0.5, top); pen.lineTo(from - 0.5, bottom); }
    pen.stroke();
  }

  mark(pen, row, column, { ink, paper }) {
    for (const [colour, gap] of [[paper, 1], [ink, 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = 1.5;
      pen.strokeRect(column.from - gap, row.from - gap, column.to - column.from + 2 * gap,
        row.to - row.from + 2 * gap);
    }
  }

  // The bin at a place of the picture, or null.
  cellAt(x, y) {
    const at = (axis, place) => axis.bins.findIndex(({ from, to }) => from <= place && place < to);
    const found = [at(this.rows, y), at(this.columns, x)];
    return found.includes(-1) ? null : found;
  }

  // What a bin is of, and what is in it.
  describe(r, c, { codes, weights }) {
    const row = this.rows.bins[r], column = this.columns.bins[c], bin = r * this.columns.bins.length + c;
    const name = `from ${this.nameOf(column)} to ${this.nameOf(row)}: `;
    if (this.isBarred(r, c)) return `${name}no edge is possible`;
    const { counts, alive, weight } = this.sums, pairs = this.pairs(r, c);
    const dead = counts[bin] - alive[bin];
    if (pairs === 1) {
      const edge = codes.indexOf(row.start * this.layer.nodes + column.start);
      if (edge < 0) return `${name}no edge`;
      return `${name}weight ${Number(valueOf(weights[edge]).toPrecision(3))}${dead ? ", of a dead node" : ""}`;
    }
    return `${name}${grouped(counts[bin])} of ${grouped(pairs)} pairs in use (${percent(counts[bin] / pairs)}), `
      + `summed |weight| ${short(weight[bin])}${dead ? `; ${grouped(dead)} of dead nodes` : ""}`;
  }

  nameOf({ start, end, group }) {
    const { sources } = this.layer, first = start < sources ? start : start - sources, last = first + end - start - 1;
    const kind = start < sources ? "node" : "output";
    const place = start < sources ? ` (${group.label})` : "";
    return first === last ? `${kind} ${first}${place}` : `${kind}s ${first}–${last}${place}`;
  }
}

const BARRED = 0.35, FAINTEST = 0.16;

// Groups of nodes one after the other on an axis, each of at least THINNEST pixels where all are; their bins are
// nearly equal in size, and about BIN pixels wide or more. Places are pixels of the page.
function divide(columns, first, length, nodes) {
  const sizes = columns.map(({ start, end }) => end - start), all = sizes.reduce((sum, size) => sum + size, 0);
  const wide = sizes.map(size => Math.max(THINNEST, length * size / all));
  const scale = length / wide.reduce((sum, one) => sum + one, 0), binOf = new Int32Array(nodes).fill(-1);
  const groups = [], bins = [];
  let place = first;
  columns.forEach((column, number) => {
    const group = { ...column, from: Math.round(place), to: Math.round(place + wide[number] * scale) };
    const count = Math.max(1, Math.min(sizes[number], Math.floor((group.to - group.from) / BIN)));
    const perBin = Math.ceil(sizes[number] / count), parts = Math.ceil(sizes[number] / perBin);
    for (let part = 0; part < parts; part++) {
      const [start, end] = [part, part + 1].map(n => column.start + Math.round(n * sizes[number] / parts));
      const [from, to] = [start, end].map(node =>
        Math.round(group.from + (group.to - group.from) * (node - column.start) / sizes[number]));
      binOf.fill(bins.length, start, end);
      bins.push({ start, end, from, to, group });
    }
    groups.push(group);
    place += wide[number] * scale;
  });
  return { groups, bins, binOf };
}

function extent({ groups }) { return [groups[0].from, groups.at(-1).to]; }

function fillBin(pixels, width, ratio, row, column, colour) {
  const [top, bottom, left, right] = [row.from, row.to, column.from, column.to].map(n => Math.round(n * ratio));
  for (let y = top; y < bottom; y++) pixels.fill(colour, y * width + left, y * width + right);
}

function mix(one, other, part) { return one.map((value, i) => value + part * (other[i] - value)); }

function percent(share) { return `${short(100 * share)} %`; }

function short(value) { return String(Number(value.toPrecision(2))); }
