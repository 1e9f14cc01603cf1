// What is shown: one state of one layer, with its numbers, its curves and the node that is looked at.

const by = id => document.getElementById(id);
const told = number => number.toLocaleString("en");

function hexToParts(hex) {
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255);
}

class Panel {
  constructor(head, states) {
    Object.assign(this, { head, states, s: 0, l: 0, chosen: -1, held: -1, timer: null });
    this.places = head.layers.map(placeNodes);
    this.scene = new Scene(by("wiring"), head.bulge);
    by("title").textContent = head.title;
    by("slider").max = states.length - 1;
    head.layers.forEach((layer, l) => by("layer").add(new Option(layer.name, l)));
    by("layers").hidden = head.layers.length < 2;
    this.readStyle();
    listen(this);
    this.labelColumns();
    this.show(0);
  }

  get layer() { return this.head.layers[this.l]; }

  get state() { return this.states[this.s].layers[this.l]; }

  // The node whose edges alone are shown: one that is held, or else the one that is pointed at; −1: none.
  get lookedAt() { return this.held >= 0 ? this.held : this.chosen; }

  readStyle() {
    const css = getComputedStyle(document.documentElement);
    const read = name => css.getPropertyValue(`--${name}`).trim();
    const names = ["paper", "ink", "faint", "line", "plus", "minus", "fresh", "live", "dead"];
    this.style = Object.fromEntries(names.map(name => [name, read(name)]));
    this.colours = Object.fromEntries(names.map(name => [name, hexToParts(this.style[name])]));
  }

  show(s) {
    this.s = Math.min(Math.max(s, 0), this.states.length - 1);
    const { numbers } = this.states[this.s], { state } = this;
    const epoch = `epoch ${Number.isInteger(numbers.epoch) ? numbers.epoch : numbers.epoch.toFixed(2)}`;
    by("slider").value = this.s;
    by("step").textContent = `step ${told(numbers.step)}, ${epoch}`;
    by("slider").setAttribute("aria-valuetext", by("step").textContent);
    by("numbers").textContent =
      `${told(state.codes.length)} edges${this.unread(state)}, ${told(state.numFresh)} new and `
      + `${told(state.lost)} gone since the state before; `
      + `${told(state.numLive)} of ${told(this.layer.sources)} nodes live; ${this.accuracies()}`;
    this.draw();
    this.charts = drawCharts(this.head, this.states, this.l, this.s, this.style);
  }

  // Training accuracy is that of the batches since the last recorded state, which may be one not shown.
  accuracies() {
    const { numbers, since } = { since: null, ...this.head.states[this.s] };
    const percent = value => value === undefined ? "–" : `${value.toFixed(1)} %`;
    const over = since === null ? "" : ` (steps ${told(since + 1)} to ${told(numbers.step)})`;
    return `training accuracy ${percent(numbers.train_accuracy)}${over}, `
      + `validation ${percent(numbers.val_accuracy)}`;
  }

  // Edges in use that the forward pass never reads are not drawn.
  unread(state) {
    const count = this.head.states[this.s].layers[this.l].total - state.codes.length;
    return count ? ` (and ${told(count)} that are never read)` : "";
  }

  draw() {
    const shown = this.scene.draw({
      layer: this.layer, places: this.places[this.l], state: this.state, part: Number(by("strength").value),
      showFresh: by("fresh").checked, chosen: this.lookedAt, colours: this.colours, style: this.style,
    });
    by("shown").textContent = `${told(shown)} edges shown`;
    this.drawTip();
    document.body.dataset.drawn = `${this.s}`;
  }

  drawTip() {
    const node = this.lookedAt, tip = by("tip"), { layer, state } = this;
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
    tip.style.left = `${Math.max(0, Math.min(x[node] * clientWidth + 14, clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.min(y[node] * clientHeight + 10, clientHeight - tip.offsetHeight)}px`;
  }

  labelColumns() {
    by("columns").replaceChildren(...this.layer.columns.map(column => {
      const label = document.createElement("span");
      label.textContent = column.label;
      label.style.left = `${100 * onCanvas(column.x)}%`;
      return label;
    }));
  }

  choose(node) {
    if (node === this.chosen) return;
    this.chosen = node;
    if (this.held < 0) this.draw();
  }

  // By keys: the next node takes the place of one that is held.
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

  // By hand: playing ends.
  go(s) {
    this.play(false);
    this.show(s);
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
