// The layer as a matrix: targets from top to bottom, sources from left to right; several nodes per bin where a
// layer has more nodes than pixels.

const BIN = 4, MIN_GROUP = 10, MARGIN = { left: 84, right: 14, top: 8, bottom: 4 };

class Matrix {
  constructor(scene) { Object.assign(this, { scene, key: "" }); }

  // view: {layer, states, state, kind, cell, colours, style}; kind: "share", the fraction of the pairs of
  // nodes in use, or "weight", the sum of magnitudes; cell: [row, column] of the selected bin, or null.
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

  // Divides both axes into bins if layer or size have changed.
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

  // Per bin, in row-major order: edges in use, those between live nodes, and the sum of magnitudes.
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

  // Number of pairs of a target and a source in a bin.
  pairs(r, c) {
    const row = this.rows.bins[r], column = this.columns.bins[c];
    return (row.end - row.start) * (column.end - column.start);
  }

  valueOf({ counts, weight }, r, c, kind) {
    const bin = r * this.columns.bins.length + c;
    return kind === "share" ? counts[bin] / this.pairs(r, c) : weight[bin];
  }

  // The value that has the full colour: the 99th percentile of the bins with an edge.
  findTop(kind, states) {
    const { rows, columns } = this, values = [];
    for (const sums of states.map(state => this.sum(state)))
      for (let r = 0; r < rows.bins.length; r++) for (let c = 0; c < columns.bins.length; c++)
        if (sums.counts[r * columns.bins.length + c]) values.push(this.valueOf(sums, r, c, kind));
    values.sort((a, b) => a - b);
    return values.length ? values[Math.floor(0.99 * (values.length - 1))] || 1 : 1;
  }

  // No edge is possible within a group, or to an earlier one.
  isBarred(r, c) {
    const row = this.rows.bins[r].group, column = this.columns.bins[c].group, { acyclic, sources } = this.layer;
    return acyclic && row.end <= sources && row.start <= column.start;
  }

  // null: empty. Edges of dead nodes mix the colour of these into that of the bin.
  colourOf(r, c, kind, { paper, share, dead, line }) {
    const bin = r * this.columns.bins.length + c, { counts, alive } = this.sums;
    if (!counts[bin]) return this.isBarred(r, c) ? pack(...mix(paper, line, BARRED)) : null;
    const full = mix(dead, share, alive[bin] / counts[bin]);
    const fraction = Math.min(1, this.valueOf(this.sums, r, c, kind) / this.highest);
    return pack(...mix(paper, full, FAINTEST + (1 - FAINTEST) * fraction));
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

  // The bin at a position in the picture, or null.
  cellAt(x, y) {
    const at = (axis, pixel) => axis.bins.findIndex(({ from, to }) => from <= pixel && pixel < to);
    const cell = [at(this.rows, y), at(this.columns, x)];
    return cell.includes(-1) ? null : cell;
  }

  // The nodes of a bin, and its content, as text.
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
    const label = start < sources ? ` (${group.label})` : "";
    return first === last ? `${kind} ${first}${label}` : `${kind}s ${first}–${last}${label}`;
  }
}

const BARRED = 0.35, FAINTEST = 0.16;

// Groups of nodes one after the other on an axis, each at least MIN_GROUP pixels wide before all are scaled to
// fit; their bins are nearly equal in size, and at least about BIN pixels wide. Units are pixels of the page.
function divide(columns, first, length, nodes) {
  const sizes = columns.map(({ start, end }) => end - start), all = sizes.reduce((sum, size) => sum + size, 0);
  const wide = sizes.map(size => Math.max(MIN_GROUP, length * size / all));
  const scale = length / wide.reduce((sum, width) => sum + width, 0), binOf = new Int32Array(nodes).fill(-1);
  const groups = [], bins = [];
  let begin = first;
  columns.forEach((column, number) => {
    const group = { ...column, from: Math.round(begin), to: Math.round(begin + wide[number] * scale) };
    const count = Math.max(1, Math.min(sizes[number], Math.floor((group.to - group.from) / BIN)));
    const perBin = Math.ceil(sizes[number] / count), numBins = Math.ceil(sizes[number] / perBin);
    for (let bin = 0; bin < numBins; bin++) {
      const [start, end] = [bin, bin + 1].map(n => column.start + Math.round(n * sizes[number] / numBins));
      const [from, to] = [start, end].map(node =>
        Math.round(group.from + (group.to - group.from) * (node - column.start) / sizes[number]));
      binOf.fill(bins.length, start, end);
      bins.push({ start, end, from, to, group });
    }
    groups.push(group);
    begin += wide[number] * scale;
  });
  return { groups, bins, binOf };
}

function extent({ groups }) { return [groups[0].from, groups.at(-1).to]; }

function fillBin(pixels, width, ratio, row, column, colour) {
  const [top, bottom, left, right] = [row.from, row.to, column.from, column.to].map(n => Math.round(n * ratio));
  for (let y = top; y < bottom; y++) pixels.fill(colour, y * width + left, y * width + right);
}

function mix(colour, other, weight) { return colour.map((value, i) => value + weight * (other[i] - value)); }

function percent(share) { return `${short(100 * share)} %`; }

function short(value) { return String(Number(value.toPrecision(2))); }
