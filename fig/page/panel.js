// What the visitor does: slider, keys, pointer.

const by = id => document.getElementById(id);

function hexToParts(hex) {
  return [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255);
}

class Panel {
  constructor(head, states) {
    Object.assign(this, { head, states, s: 0, l: 0, chosen: -1, held: -1, timer: null });
    this.places = head.layers.map(placeNodes);
    this.ranks = states.map(() => head.layers.map(() => null));
    this.scene = new Scene(by("wiring"));
    by("title").textContent = head.title;
    by("slider").max = states.length - 1;
    head.layers.forEach((layer, l) => by("layer").add(new Option(layer.name, l)));
    by("layers").hidden = head.layers.length < 2;
    this.readStyle();
    this.listen();
    this.labelColumns();
    this.show(0);
  }

  readStyle() {
    const css = getComputedStyle(document.documentElement);
    const read = name => css.getPropertyValue(`--${name}`).trim();
    this.style = Object.fromEntries(
      ["paper", "ink", "faint", "line", "plus", "minus", "fresh", "live", "dead"].map(name => [name, read(name)]));
    this.colours = Object.fromEntries(Object.entries(this.style).map(([name, hex]) => [name, hexToParts(hex)]));
  }

  // The strength that leaves the strongest part of the edges, from 0 to 100 %.
  limit(part) {
    if (part >= 100) return 0;
    const ranks = this.ranks[this.s];
    if (!ranks[this.l]) ranks[this.l] = Uint8Array.from(this.layerState().strengths, Math.abs).sort().reverse();
    const count = Math.round(ranks[this.l].length * part / 100);
    return count ? ranks[this.l][count - 1] / 127 : 2;
  }

  layerState() { return this.states[this.s].layers[this.l]; }

  show(s) {
    this.s = Math.min(Math.max(s, 0), this.states.length - 1);
    by("slider").value = this.s;
    const { numbers } = this.states[this.s], state = this.layerState();
    const percent = value => value === undefined ? "–" : `${value.toFixed(1)} %`;
    const epoch = `epoch ${Math.floor(numbers.epoch) === numbers.epoch ? numbers.epoch : numbers.epoch.toFixed(2)}`;
    by("step").textContent = `step ${numbers.step.toLocaleString("en")}, ${epoch}`;
    by("numbers").textContent =
      `${state.codes.length.toLocaleString("en")} edges${this.unread(state)}, ${state.numFresh.toLocaleString("en")} new and `
      + `${state.lost.toLocaleString("en")} gone since the state before; ${state.numLive.toLocaleString("en")} of `
      + `${this.head.layers[this.l].sources.toLocaleString("en")} nodes live; training accuracy `
      + `${percent(numbers.train_accuracy)}, validation ${percent(numbers.val_accuracy)}`;
    this.draw();
    drawCharts(this.states, this.l, this.s, this.style);
  }

  // Edges in use that the forward pass never reads are not drawn.
  unread(state) {
    const count = this.head.states[this.s].totals[this.l] - state.codes.length;
    return count ? ` (and ${count.toLocaleString("en")} that are never read)` : "";
  }

  draw() {
    const shown = this.scene.draw({
      layer: this.head.layers[this.l], places: this.places[this.l], state: this.layerState(),
      limit: this.limit(Number(by("strength").value)), showFresh: by("fresh").checked,
      chosen: this.held >= 0 ? this.held : this.chosen, colours: this.colours, style: this.style,
    });
    by("shown").textContent = `${shown.toLocaleString("en")} edges shown`;
    document.body.dataset.drawn = `${this.s}`;
  }

  labelColumns() {
    const columns = this.head.layers[this.l].columns;
    by("columns").replaceChildren(...columns.map((column, c) => {
      const label = document.createElement("span");
      label.textContent = column.label;
      label.style.left = `${columns.length > 1 ? 4 + 92 * c / (columns.length - 1) : 50}%`;
      return label;
    }));
  }

  play(on) {
    clearInterval(this.timer);
    this.timer = on ? setInterval(() => {
      if (this.s + 1 >= this.states.length) this.play(false); else this.show(this.s + 1);
    }, Math.max(60, Math.min(600, 12000 / this.states.length))) : null;
    by("play").textContent = on ? "⏸" : "▶";
    by("play").setAttribute("aria-label", on ? "Pause" : "Play");
  }

  toggle() {
    if (!this.timer && this.s + 1 >= this.states.length) this.show(0);
    this.play(!this.timer);
  }

  nearest(event) {
    const box = by("wiring").getBoundingClientRect(), { x, y } = this.places[this.l];
    let found = -1, best = 14 * 14;
    for (let node = 0; node < x.length; node++) {
      const dx = x[node] * box.width - (event.clientX - box.left);
      const dy = y[node] * box.height - (event.clientY - box.top);
      if (dx * dx + dy * dy < best) { best = dx * dx + dy * dy; found = node; }
    }
    return found;
  }

  point(event) {
    const node = this.nearest(event), tip = by("tip");
    tip.hidden = node < 0;
    if (node >= 0) {
      const box = by("wiring").getBoundingClientRect(), layer = this.head.layers[this.l], state = this.layerState();
      let into = 0, out = 0;
      state.codes.forEach(code => {
        if (code % layer.nodes === node) out++;
        if (Math.floor(code / layer.nodes) === node) into++;
      });
      const name = node < layer.sources ? `node ${node}` : `output ${node - layer.sources}`;
      const dead = node < layer.sources && !state.live[node] ? ", dead" : "";
      tip.textContent = `${name}${dead}: ${into} edges in, ${out} out`;
      tip.style.left = `${Math.min(event.clientX - box.left + 14, box.width - 190)}px`;
      tip.style.top = `${event.clientY - box.top + 10}px`;
    }
    if (node !== this.chosen) { this.chosen = node; this.draw(); }
  }

  listen() {
    by("slider").addEventListener("input", event => { this.play(false); this.show(Number(event.target.value)); });
    by("play").addEventListener("click", () => this.toggle());
    by("strength").addEventListener("input", () => this.draw());
    by("fresh").addEventListener("change", () => this.draw());
    by("layer").addEventListener("change", event => {
      this.l = Number(event.target.value);
      this.chosen = this.held = -1;
      this.labelColumns();
      this.show(this.s);
    });
    by("theme").addEventListener("click", () => {
      const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      this.readStyle();
      this.show(this.s);
    });
    const canvas = by("wiring");
    canvas.addEventListener("pointermove", event => this.point(event));
    canvas.addEventListener("pointerleave", () => { by("tip").hidden = true; this.chosen = -1; this.draw(); });
    canvas.addEventListener("click", event => {
      const node = this.nearest(event);
      this.held = node === this.held ? -1 : node;
      this.draw();
    });
    for (const id of ["accuracy", "alive"]) by(id).addEventListener("click", event => {
      const box = event.target.getBoundingClientRect();
      this.show(Math.round((event.clientX - box.left - 38) / (box.width - 46) * (this.states.length - 1)));
    });
    window.addEventListener("resize", () => this.show(this.s));
    window.addEventListener("keydown", event => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.readStyle(); this.show(this.s); });
  }

  key(event) {
    if (["SELECT", "BUTTON"].includes(event.target.tagName) && event.key === " ") return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const strength = by("strength"), onSlider = event.target.type === "range";
    const actions = {
      ArrowRight: () => onSlider || this.show(this.s + 1), ArrowLeft: () => onSlider || this.show(this.s - 1),
      Home: () => onSlider || this.show(0), End: () => onSlider || this.show(this.states.length - 1),
      " ": () => this.toggle(),
      "+": () => { strength.value = Number(strength.value) + 5; this.draw(); },
      "-": () => { strength.value = Number(strength.value) - 5; this.draw(); },
    };
    if (!actions[event.key]) return;
    actions[event.key]();
    if (!onSlider) event.preventDefault();
  }
}

(async () => {
  try {
    const head = JSON.parse(by("head").textContent);
    const states = readStates(head, await unpack(by("blob").textContent.trim()));
    markFresh(states);
    window.panel = new Panel(head, states);
  } catch (error) {
    by("failure").hidden = false;
    by("failure").textContent = `The wiring cannot be shown: ${error.message}`;
    throw error;
  }
})();
