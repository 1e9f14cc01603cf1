// The recorded states: unpacked once, then looked up.

async function unpack(base64) {
  const packed = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// head.states[i].counts[l]: edges of layer l. Of each state and layer the bytes hold: the gaps between the edges'
// numbers, byte by byte (all lowest bytes, then all next ones, 4 of them), signed strengths, and packed live bits.
function readStates(head, bytes) {
  let at = 0;
  return head.states.map(told => ({
    numbers: told.numbers,
    layers: head.layers.map((layer, l) => {
      const count = told.counts[l];
      const codes = new Uint32Array(count);
      let code = -1;
      for (let i = 0; i < count; i++) {
        const gap = bytes[at + i] + bytes[at + count + i] * 256 + bytes[at + 2 * count + i] * 65536
          + bytes[at + 3 * count + i] * 16777216;
        code += gap;
        codes[i] = code;
      }
      at += 4 * count;
      const strengths = new Int8Array(bytes.buffer, bytes.byteOffset + at, count);
      at += count;
      const live = new Uint8Array(layer.sources);
      for (let i = 0; i < layer.sources; i++) live[i] = (bytes[at + (i >> 3)] >> (7 - (i & 7))) & 1;
      at += (layer.sources + 7) >> 3;
      return { codes, strengths, live, fresh: new Uint8Array(count), lost: 0, numFresh: 0,
        numLive: live.reduce((sum, one) => sum + one, 0) };
    }),
  }));
}

// Both lists of edges rise, so one walk through them finds what was swapped.
function markFresh(states) {
  for (let s = 1; s < states.length; s++) {
    states[s].layers.forEach((now, l) => {
      const before = states[s - 1].layers[l].codes;
      let j = 0, common = 0;
      for (let i = 0; i < now.codes.length; i++) {
        while (j < before.length && before[j] < now.codes[i]) j++;
        if (j < before.length && before[j] === now.codes[i]) common++;
        else now.fresh[i] = 1;
      }
      now.numFresh = now.codes.length - common;
      now.lost = before.length - common;
    });
  }
}

// An edge's number is target · nodes + source. Places of the nodes, 0..1 from left to right and from top to bottom.
function placeNodes(layer) {
  const x = new Float32Array(layer.nodes), y = new Float32Array(layer.nodes);
  const columns = layer.columns;
  columns.forEach((column, c) => {
    const size = column.end - column.start;
    for (let i = 0; i < size; i++) {
      x[column.start + i] = columns.length > 1 ? 0.04 + 0.92 * c / (columns.length - 1) : 0.5;
      y[column.start + i] = (i + 0.5) / size * 0.94 + 0.03;
    }
  });
  return { x, y };
}
