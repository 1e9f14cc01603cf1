// The picture of one state. Edges add up to densities, pixel by pixel, so that their order does not matter
// and tens of thousands of them take milliseconds without a graphics card; nodes are drawn on top.

const LEVELS = 1024, DEEPEST = 6;
const OPACITY = Float32Array.from({ length: LEVELS + 1 }, (_, i) => 1 - Math.exp(-i * DEEPEST / LEVELS));

class Scene {
  constructor(canvas, bulge) {
    Object.assign(this, { canvas, bulge, pen: canvas.getContext("2d", { alpha: false }) });
  }

  // view: {layer, places, state, part, showFresh, chosen, colours, style}; returns how many edges are shown.
  draw(view) {
    const { canvas } = this;
    const ratio = view.state.codes.length > 8000 ? 1 : Math.min(2, window.devicePixelRatio || 1);
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height || !this.image) {
      canvas.width = width;
      canvas.height = height;
      this.image = this.pen.createImageData(width, height);
      this.densities = ["plus", "minus", "fresh"].map(() => new Float32Array(width * height));
    }
    this.densities.forEach(density => density.fill(0));
    const count = this.addEdges(view, ratio);
    this.colour(view.colours);
    this.pen.putImageData(this.image, 0, 0);
    this.drawNodes(view, ratio);
    return count;
  }

  // The strongest `part` of the edges, in per cent, exactly; of edges that are as strong as the last one the
  // first ones. An edge is the heavier the more edges are weaker: weights spread over orders of magnitude.
  addEdges({ layer, places, state, part, showFresh, chosen }, ratio) {
    const { codes, weights, fresh } = state, [plus, minus, isNew] = this.densities;
    const most = Math.ceil(codes.length * part / 100), atLeast = countStronger(weights);
    const thin = chosen >= 0 ? 1 : Math.min(1, Math.max(0.05, 1500 / codes.length));
    const newWeight = chosen >= 0 ? 1.5 : Math.min(1.5, 200 / state.numFresh);
    const straight = codes.length > 20000;
    let count = 0, ties = 0;
    for (let i = 0; i < codes.length; i++) {
      const size = sizeOf(weights[i]), stronger = atLeast[size + 1];
      if (stronger >= most || (atLeast[size] > most && ++ties > most - stronger)) continue;
      const target = Math.floor(codes[i] / layer.nodes), source = codes[i] % layer.nodes;
      if (chosen >= 0 && chosen !== source && chosen !== target) continue;
      count++;
      const highlight = showFresh && fresh[i], rank = 1 - stronger / codes.length;
      const density = highlight ? isNew : isPositive(weights[i]) ? plus : minus;
      const weight = highlight ? newWeight : (0.15 + 1.7 * rank * rank) * thin;
      this.addEdge(density, ratio * weight, places, source, target, ratio, straight);
    }
    return count;
  }

  // Within a column an edge is a bow: to the right on its way down, to the left on its way up.
  addEdge(density, weight, { x, y }, source, target, ratio, plain) {
    const { width, height } = this.canvas;
    const x0 = x[source] * (width - 1), y0 = y[source] * (height - 1);
    const x1 = x[target] * (width - 1), y1 = y[target] * (height - 1);
    if (x0 !== x1) addLine(density, width, weight, x0, y0, x1, y1, plain);
    else if (source === target) addLoop(density, width, weight, x0, y0, 5 * ratio);
    else addBow(density, width, weight, x0, y0, y1, (y1 - y0) * Math.min(0.25, this.bulge * width / height));
  }

  colour({ paper, plus, minus, fresh }) {
    const pixels = new Uint32Array(this.image.data.buffer), [ofPlus, ofMinus, ofFresh] = this.densities;
    const empty = pack(...paper), scale = LEVELS / DEEPEST;
    const [r0, g0, b0, r1, g1, b1, r2, g2, b2, r3, g3, b3] = [...paper, ...plus, ...minus, ...fresh];
    for (let i = 0; i < pixels.length; i++) {
      const positive = ofPlus[i], all = positive + ofMinus[i], added = ofFresh[i];
      if (all === 0 && added === 0) { pixels[i] = empty; continue; }
      const over = OPACITY[Math.min(LEVELS, added * scale | 0)];
      const cover = OPACITY[Math.min(LEVELS, all * scale | 0)], part = all ? positive / all * cover : 0;
      const ground = (1 - over) * (1 - cover), a = (1 - over) * part, b = (1 - over) * (cover - part);
      pixels[i] = pack(ground * r0 + a * r1 + b * r2 + over * r3, ground * g0 + a * g1 + b * g2 + over * g3,
        ground * b0 + a * b1 + b * b2 + over * b3);
    }
  }

  drawNodes({ layer, places, state, chosen, style }, ratio) {
    const { pen } = this, { width, height } = this.canvas;
    const tallest = Math.max(...layer.columns.map(column => column.end - column.start));
    const radius = ratio * Math.min(4.5, Math.max(1, 200 / tallest));
    for (const live of [false, true]) {
      pen.fillStyle = live ? style.live : style.dead;
      pen.beginPath();
      for (let node = 0; node < layer.nodes; node++) {
        if ((node >= layer.sources || state.live[node] === 1) !== live) continue;
        const x = places.x[node] * (width - 1), y = places.y[node] * (height - 1);
        const size = node === chosen ? 2.2 * radius : radius;
        pen.moveTo(x + size, y);
        pen.arc(x, y, size, 0, 2 * Math.PI);
      }
      pen.fill();
    }
  }
}

// One step along the longer side at a time; each step is shared by the two pixels that it lies between, or,
// where so many lines lie above each other that it cannot be seen, given to the nearer one.
function addLine(density, width, weight, x0, y0, x1, y1, plain) {
  const steep = Math.abs(y1 - y0) > Math.abs(x1 - x0);
  let along = steep ? y0 : x0, across = steep ? x0 : y0, end = steep ? y1 : x1, last = steep ? x1 : y1;
  if (along > end) [along, end, across, last] = [end, along, last, across];
  const slope = end > along ? (last - across) / (end - along) : 0;
  const [forward, beside] = steep ? [width, 1] : [1, width];
  const first = Math.round(along), stop = Math.round(end);
  let at = across + (first - along) * slope;
  if (plain) {
    at += 0.5;
    for (let step = first; step <= stop; step++, at += slope)
      density[step * forward + (at | 0) * beside] += weight;
    return;
  }
  for (let step = first; step <= stop; step++, at += slope) {
    const whole = at | 0, rest = at - whole, place = step * forward + whole * beside;
    density[place] += weight * (1 - rest);
    density[place + beside] += weight * rest;
  }
}

// A parabola from (x, y0) to (x, y1) that is `bulge` away in the middle, one line of pixels at a time:
// `bulge` is at most a quarter of the height, so that it has no gaps.
function addBow(density, width, weight, x, y0, y1, bulge) {
  const first = Math.round(Math.min(y0, y1)), last = Math.round(Math.max(y0, y1));
  for (let y = first; y <= last; y++) {
    const t = last > first ? (y - first) / (last - first) : 0.5;
    const at = x + 4 * bulge * t * (1 - t), whole = Math.floor(at), rest = at - whole;
    density[y * width + whole] += weight * (1 - rest);
    density[y * width + whole + 1] += weight * rest;
  }
}

// A circle at the right of a node.
function addLoop(density, width, weight, x, y, radius) {
  const corners = 12, turn = n => 2 * Math.PI * n / corners;
  for (let n = 0; n < corners; n++) {
    const [x0, x1] = [n, n + 1].map(m => x + radius - radius * Math.cos(turn(m)));
    const [y0, y1] = [n, n + 1].map(m => Math.max(0, y + radius * Math.sin(turn(m))));
    addLine(density, width, weight, x0, y0, x1, y1, false);
  }
}

// Parts from 0 to 1 as a pixel.
function pack(r, g, b) {
  const red = 255 * r, green = 255 * g, blue = 255 * b;
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
}
