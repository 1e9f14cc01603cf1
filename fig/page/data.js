// The recorded states, unpacked once when the page is opened.

async function unpack(base64) {
  const packed = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class Reader {
  constructor(bytes) { Object.assign(this, { bytes, at: 0 }); }

  // Numbers of `width` bytes: all their lowest bytes, then all next ones, …
  numbers(count, width) {
    const values = new Uint32Array(count);
    for (let plane = 0; plane < width; plane++, this.at += count)
      for (let i = 0; i < count; i++) values[i] += this.bytes[this.at + i] * 256 ** plane;
    return values;
  }

  // Ascending numbers from their differences; the first one's is to −1.
  ascending(count) {
    const values = this.numbers(count, 4);
    for (let i = 0, last = -1; i < count; i++) last = values[i] += last;
    return values;
  }

  bits(count) {
    const bit = (_, i) => (this.bytes[this.at + (i >> 3)] >> (7 - (i & 7))) & 1;
    const values = Uint8Array.from({ length: count }, bit);
    this.at += (count + 7) >> 3;
    return values;
  }
}

// head.states[s].layers[l] counts a layer's edges, and those added and removed since the previous state. The
// bytes hold: codes of the added edges, indices in the previous list of the removed ones, weights of all edges
// as 16-bit floats, and which nodes are live.
function readStates(head, bytes) {
  const reader = new Reader(bytes), before = head.layers.map(() => new Uint32Array(0));
  return head.states.map((recorded, s) => ({
    numbers: recorded.numbers,
    layers: head.layers.map((layer, l) => {
      const { edges, added, removed } = recorded.layers[l];
      const merged = merge(before[l], reader.ascending(added), reader.ascending(removed), edges);
      before[l] = merged.codes;
      const weights = Uint16Array.from(reader.numbers(edges, 2)), live = reader.bits(layer.sources);
      const numLive = live.reduce((sum, bit) => sum + bit, 0);
      if (s === 0) merged.fresh.fill(0);
      return { ...merged, weights, live, numLive, numFresh: s ? added : 0, numRemoved: s ? removed : 0 };
    }),
  }));
}

// Codes of the previous edges without the removed ones and with the added ones, ascending; fresh: is added.
function merge(old, added, removed, count) {
  const codes = new Uint32Array(count), fresh = new Uint8Array(count);
  let i = 0, next = 0, skipped = 0;
  for (let at = 0; at < count; at++) {
    while (skipped < removed.length && removed[skipped] === i) { i++; skipped++; }
    if (next < added.length && (i >= old.length || added[next] < old[i])) {
      codes[at] = added[next++];
      fresh[at] = 1;
    } else codes[at] = old[i++];
  }
  return { codes, fresh };
}

// The bits of a float without its sign ascend with its magnitude, so they order the edges by strength.
const MAGNITUDES = 0x8000;
const magnitudeOf = bits => bits & (MAGNITUDES - 1), isPositive = bits => bits < MAGNITUDES;

// The value of a 16-bit float.
function valueOf(bits) {
  const exponent = (bits >> 10) & 31, mantissa = bits & 1023, sign = isPositive(bits) ? 1 : -1;
  return sign * (exponent ? (1024 + mantissa) * 2 ** (exponent - 25) : mantissa * 2 ** -24);
}

// Number of edges of at least each magnitude, and 0 at the end.
function countStronger(weights) {
  const counts = new Uint32Array(MAGNITUDES + 1);
  for (let i = 0; i < weights.length; i++) counts[magnitudeOf(weights[i])]++;
  for (let magnitude = MAGNITUDES - 1; magnitude >= 0; magnitude--) counts[magnitude] += counts[magnitude + 1];
  return counts;
}

// Indices of the `most` strongest edges; of edges equal to the weakest of them the first ones.
function strongestEdges(weights, most) {
  const atLeast = countStronger(weights), indices = new Uint32Array(Math.min(most, weights.length));
  for (let i = 0, count = 0, ties = 0; i < weights.length; i++) {
    const magnitude = magnitudeOf(weights[i]), stronger = atLeast[magnitude + 1];
    if (stronger < most && (atLeast[magnitude] <= most || ++ties <= most - stronger)) indices[count++] = i;
  }
  return indices;
}

// Indices of all edges from and to a node.
function edgesOfNode(codes, nodes, node) {
  const indices = [];
  for (let i = 0; i < codes.length; i++)
    if (codes[i] % nodes === node || Math.floor(codes[i] / nodes) === node) indices.push(i);
  return indices;
}

// Which nodes of a layer, sources and outputs, are drawn as live. Outputs are, since the next layer reads them.
function liveNodes({ nodes, outputs }, live) {
  const flags = new Uint8Array(nodes);
  flags.set(live);
  return flags.fill(1, ...outputs);
}

// Fractions of the picture's width from left to right, and of its height from top to bottom.
function placeNodes(layer) {
  const x = Float32Array.from(layer.x, onCanvas), y = Float32Array.from(layer.y, fraction => 0.97 - 0.94 * fraction);
  return { x, y };
}

function onCanvas(fraction) { return 0.04 + 0.92 * fraction; }
