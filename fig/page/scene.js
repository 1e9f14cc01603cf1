// The picture of one state. Edges are summed to densities, pixel by pixel, so that their order does not matter
// and tens of thousands of them take milliseconds without a GPU; nodes are drawn on top.

const LEVELS = 1024, DEEPEST = 6, SCALE = LEVELS / DEEPEST;
const OPACITY = Float32Array.from({ length: LEVELS + 1 }, (_, i) => 1 - Math.exp(-i * DEEPEST / LEVELS));

class Scene {
  constructor(canvas, bulge) {
    Object.assign(this, { canvas, bulge, pen: canvas.getContext("2d", { alpha: false }) });
  }

  // view: {layer, places, state, most, showFresh, chosen, colours, style}; returns the number of drawn edges.
  draw(view) {
    const { layer, state, chosen, most } = view, { codes, weights } = state;
    const drawn = chosen >= 0 ? edgesOfNode(codes, layer.nodes, chosen) : strongestEdges(weights, most);
    const live = liveNodes(layer, state.live);
    const ratio = this.resize(drawn.length > 8000 ? 1 : 2);
    this.densities.forEach(density => density.fill(0));
    this.addEdges(view, drawn, live, ratio);
    this.colour(view.colours);
    this.pen.putImageData(this.image, 0, 0);
    this.drawNodes(view, live, ratio);
    return drawn.length;
  }

  // Fits the canvas to the page. Returns its pixels per pixel of the page, at most `finest`.
  resize(finest) {
    const { canvas } = this, ratio = Math.min(finest, window.devicePixelRatio || 1);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map(n => Math.max(1, Math.round(n * ratio)));
    if (canvas.width !== width || canvas.height !== height || !this.image) {
      canvas.width = width;
      canvas.height = height;
      this.image = this.pen.createImageData(width, height);
      this.densities = ["plus", "minus", "fresh", "dead"].map(() => new Float32Array(width * height));
    }
    return ratio;
  }

  // Opacity is by rank, not by weight: weights differ by orders of magnitude. Edges from and to dead nodes are
  // faded.
  addEdges({ layer, places, state, showFresh, chosen }, drawn, live, ratio) {
    const { codes, weights, fresh } = state, [plus, minus, isNew, isDead] = this.densities;
    const drawnWeights = new Uint16Array(drawn.length);
    let numFresh = 0;
    drawn.forEach((i, at) => { drawnWeights[at] = weights[i]; numFresh += fresh[i]; });
    const atLeast = countStronger(drawnWeights), alone = chosen >= 0;
    const thin = alone ? 1 : Math.min(1, Math.max(0.05, 1500 / drawn.length)), least = alone ? 0.6 : 0.15;
    const newWeight = alone ? 1.5 : Math.min(1.5, 200 / numFresh), plain = drawn.length > 20000;
    for (const i of drawn) {
      const target = Math.floor(codes[i] / layer.nodes), source = codes[i] % layer.nodes;
      const rank = 1 - atLeast[magnitudeOf(weights[i]) + 1] / drawn.length;
      const faded = !live[source] || !live[target], highlight = showFresh && fresh[i] && !faded;
      const density = faded ? isDead : highlight ? isNew : isPositive(weights[i]) ? plus : minus;
      const weight = highlight ? newWeight : (least + (1.85 - least) * rank * rank) * thin;
      this.addEdge(density, ratio * weight, places, source, target, ratio, plain);
    }
  }

  // Within a column an edge is an arc: right of the column downwards, left of it upwards.
  addEdge(density, weight, { x, y }, source, target, ratio, plain) {
    const { width, height } = this.canvas;
    const x0 = x[source] * (width - 1), y0 = y[source] * (height - 1);
    const x1 = x[target] * (width - 1), y1 = y[target] * (height - 1);
    if (x0 !== x1) addLine(density, width, weight, x0, y0, x1, y1, plain);
    else if (source === target) addLoop(density, width, weight, x0, y0, 5 * ratio);
    else addArc(density, width, weight, x0, y0, y1, (y1 - y0) * Math.min(0.25, this.bulge * width / height));
  }

  // From bottom to top: paper, edges of dead nodes, positive and negative ones, new ones.
  colour({ paper, plus, minus, fresh, dead }) {
    const pixels = new Uint32Array(this.image.data.buffer);
    const [ofPlus, ofMinus, ofFresh, ofDead] = this.densities;
    const empty = pack(...paper), opacity = density => OPACITY[Math.min(LEVELS, density * SCALE | 0)];
    const [r0, g0, b0, r1, g1, b1, r2, g2, b2] = [...paper, ...plus, ...minus];
    const [r3, g3, b3, r4, g4, b4] = [...fresh, ...dead];
    for (let i = 0; i < pixels.length; i++) {
      const positive = ofPlus[i], all = positive + ofMinus[i], added = ofFresh[i], faded = ofDead[i];
      if (all === 0 && added === 0 && faded === 0) { pixels[i] = empty; continue; }
      const over = opacity(added), cover = opacity(all), under = opacity(faded);
      const plusCover = all ? positive / all * cover : 0, ground = (1 - over) * (1 - cover);
      const a = (1 - over) * plusCover, b = (1 - over) * (cover - plusCover);
      const c = ground * under, d = ground - c;
      pixels[i] = pack(d * r0 + c * r4 + a * r1 + b * r2 + over * r3,
        d * g0 + c * g4 + a * g1 + b * g2 + over * g3, d * b0 + c * b4 + a * b1 + b * b2 + over * b3);
    }
  }

  drawNodes({ layer, places, chosen, style }, live, ratio) {
    const { pen } = this, { width, height } = this.canvas;
    const tallest = Math.max(...layer.columns.map(column => column.end - column.start));
    const radius = ratio * Math.min(4.5, Math.max(1, 200 / tallest));
    for (const drawn of [0, 1]) {
      pen.fillStyle = drawn ? style.live : style.dead;
      pen.beginPath();
      for (let node = 0; node < layer.nodes; node++) {
        if (live[node] !== drawn) continue;
        const x = places.x[node] * (width - 1), y = places.y[node] * (height - 1);
        const size = node === chosen ? Math.max(5 * ratio, 2.2 * radius) : radius;
        pen.moveTo(x + size, y);
        pen.arc(x, y, size, 0, 2 * Math.PI);
      }
      pen.fill();
    }
  }
}

// One step along the longer side at a time. Each step is distributed over the two adjacent pixels, or, with so
// many lines that the difference cannot be seen (`plain`), added to the nearer one.
function addLine(density, width, weight, x0, y0, x1, y1, plain) {
  const steep = Math.abs(y1 - y0) > Math.abs(x1 - x0);
  let along = steep ? y0 : x0, across = steep ? x0 : y0, end = steep ? y1 : x1, last = steep ? x1 : y1;
  if (along > end) [along, end, across, last] = [end, along, last, across];
  const slope = end > along ? (last - across) / (end - along) : 0;
  const [forward, sideways] = steep ? [width, 1] : [1, width];
  const first = Math.round(along), stop = Math.round(end);
  let at = across + (first - along) * slope;
  if (plain) {
    at += 0.5;
    for (let step = first; step <= stop; step++, at += slope)
      density[step * forward + (at | 0) * sideways] += weight;
    return;
  }
  for (let step = first; step <= stop; step++, at += slope) {
    const whole = at | 0, rest = at - whole, index = step * forward + whole * sideways;
    density[index] += weight * (1 - rest);
    density[index + sideways] += weight * rest;
  }
}

// A parabola from (x, y0) to (x, y1) at the distance `bulge` in the middle, one row of pixels at a time:
// `bulge` is at most a quarter of the height, so that it has no gaps.
function addArc(density, width, weight, x, y0, y1, bulge) {
  const first = Math.round(Math.min(y0, y1)), last = Math.round(Math.max(y0, y1));
  for (let y = first; y <= last; y++) {
    const t = last > first ? (y - first) / (last - first) : 0.5;
    const at = x + 4 * bulge * t * (1 - t), whole = Math.floor(at), rest = at - whole;
    density[y * width + whole] += weight * (1 - rest);
    density[y * width + whole + 1] += weight * rest;
  }
}

// A circle right of a node.
function addLoop(density, width, weight, x, y, radius) {
  const corners = 12, turn = n => 2 * Math.PI * n / corners;
  for (let n = 0; n < corners; n++) {
    const [x0, x1] = [n, n + 1].map(m => x + radius - radius * Math.cos(turn(m)));
    const [y0, y1] = [n, n + 1].map(m => Math.max(0, y + radius * Math.sin(turn(m))));
    addLine(density, width, weight, x0, y0, x1, y1, false);
  }
}

// Red, green and blue from 0 to 1 as a pixel.
function pack(r, g, b) {
  const red = 255 * r + 0.5, green = 255 * g + 0.5, blue = 255 * b + 0.5;
  return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
}
