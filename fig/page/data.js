// The recorded states: unpacked once, then looked up.

async function unpack(base64) {
  const packed = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class Reader {
  constructor(bytes) { Object.assign(this, { bytes, at: 0 }); }

  // Numbers of `width` bytes: all their lowest bytes, then all next ones, …
  numbers(count, width) {
    const found = new Uint32Array(count);
    for (let plane = 0; plane < width; plane++, this.at += count)
      for (let i = 0; i < count; i++) found[i] += this.bytes[this.at + i] * 256 ** plane;
    return found;
  }

  // Rising numbers by their gaps; the first one's is to −1.
  rising(count) {
    const found = this.numbers(count, 4);
    for (let i = 0, last = -1; i < count; i++) last = found[i] += last;
    return found;
  }

  bits(count) {
    const bit = (_, i) => (this.bytes[this.at + (i >> 3)] >> (7 - (i & 7))) & 1;
    const found = Uint8Array.from({ length: count }, bit);
    this.at += (count + 7) >> 3;
    return found;
  }
}

// head.states[s].layers[l] counts a layer's edges and those that came and went since the state before. The
// bytes hold: numbers of the edges that came, places in the earlier list of those that went, weights of all
// edges as 16-bit floats, and which nodes are live.
function readStates(head, bytes) {
  const reader = new Reader(bytes), before = head.layers.map(() => new Uint32Array(0));
  return head.states.map((recorded, s) => ({
    numbers: recorded.numbers,
    layers: head.layers.map((layer, l) => {
      const { edges, came, went } = recorded.layers[l];
      const merged = merge(before[l], reader.rising(came), reader.rising(went), edges);
      before[l] = merged.codes;
      const weights = Uint16Array.from(reader.numbers(edges, 2)), live = reader.bits(layer.sources);
      const numLive = live.reduce((sum, one) => sum + one, 0);
      if (s === 0) merged.fresh.fill(0);
      return { ...merged, weights, live, numLive, numFresh: s ? came : 0, lost: s ? went : 0 };
    }),
  }));
}

// Edges that stay and edges that come, rising; fresh: which ones come.
function merge(old, came, went, count) {
  const codes = new Uint32Array(count), fresh = new Uint8Array(count);
  let i = 0, next = 0, gone = 0;
  for (let at = 0; at < count; at++) {
    while (gone < went.length && went[gone] === i) { i++; gone++; }
    if (next < came.length && (i >= old.length || came[next] < old[i])) {
      codes[at] = came[next++];
      fresh[at] = 1;
    } else codes[at] = old[i++];
  }
  return { codes, fresh };
}

// The bits of a float without its sign rise with its size, so they order the edges by strength.
const SIZES = 0x8000;
const sizeOf = bits => bits & (SIZES - 1), isPositive = bits => bits < SIZES;

// The number that a 16-bit float stands for.
function valueOf(bits) {
  const exponent = (bits >> 10) & 31, rest = bits & 1023, sign = isPositive(bits) ? 1 : -1;
  return sign * (exponent ? (1024 + rest) * 2 ** (exponent - 25) : rest * 2 ** -24);
}

// How many edges are at least as strong as each size, and 0 at the end.
function countStronger(weights) {
  const counts = new Uint32Array(SIZES + 1);
  for (let i = 0; i < weights.length; i++) counts[sizeOf(weights[i])]++;
  for (let size = SIZES - 1; size >= 0; size--) counts[size] += counts[size + 1];
  return counts;
}

// Places of the `most` strongest edges; of edges that are as strong as the last one the first ones.
function strongestEdges(weights, most) {
  const atLeast = countStronger(weights), found = new Uint32Array(Math.min(most, weights.length));
  for (let i = 0, count = 0, ties = 0; i < weights.length; i++) {
    const size = sizeOf(weights[i]), stronger = atLeast[size + 1];
    if (stronger < most && (atLeast[size] <= most || ++ties <= most - stronger)) found[count++] = i;
  }
  return found;
}

// Places of all edges from and to a node, however weak.
function edgesOfNode(codes, nodes, node) {
  const found = [];
  for (let i = 0; i < codes.length; i++)
    if (codes[i] % nodes === node || Math.floor(codes[i] / nodes) === node) found.push(i);
  return found;
}

// Which nodes of a layer, sources and outputs, are drawn as live. Outputs are read by what follows.
function liveNodes({ nodes, outputs }, live) {
  const found = new Uint8Array(nodes);
  found.set(live);
  return found.fill(1, ...outputs);
}

// Parts of the picture's width from left to right, and of its height from top to bottom.
function placeNodes(layer) {
  const x = Float32Array.from(layer.x, onCanvas), y = Float32Array.from(layer.y, part => 0.97 - 0.94 * part);
  return { x, y };
}

function onCanvas(part) { return 0.04 + 0.92 * part; }
