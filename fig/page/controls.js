// Controls: slider, buttons, keys, pointer.

function listen(panel) {
  by("slider").addEventListener("input", event => panel.go(Number(event.target.value)));
  by("play").addEventListener("click", () => panel.toggle());
  by("strength").addEventListener("input", () => panel.followSlider());
  by("all").addEventListener("click", () => panel.toggleAll());
  by("view").addEventListener("click", () => panel.toggleMatrix());
  by("kind").addEventListener("change", () => panel.draw());
  by("fresh").addEventListener("change", () => panel.draw());
  by("layer").addEventListener("change", event => panel.openLayer(Number(event.target.value)));
  const restyle = () => { panel.readStyle(); panel.show(panel.s); };
  by("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    restyle();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  listenToPointer(panel);
  window.addEventListener("resize", () => {
    panel.cell = null; // the bins change
    panel.labelAxes();
    panel.show(panel.s);
  });
  window.addEventListener("keydown", event => pressed(panel, event));
}

function listenToPointer(panel) {
  const canvas = by("wiring");
  const look = event => {
    if (panel.isMatrix) panel.chooseCell(cellAt(panel, event)); else panel.choose(nodeAt(panel, event));
  };
  const leave = () => { panel.choose(-1); panel.chooseCell(null); };
  canvas.addEventListener("pointermove", look);
  canvas.addEventListener("pointerdown", look);
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("click", event => { if (!panel.isMatrix) panel.hold(nodeAt(panel, event)); });
  for (const id of ["accuracy", "alive"]) by(id).addEventListener("click", event => {
    const pixel = event.clientX - event.target.getBoundingClientRect().left;
    panel.go(nearestState(panel.charts[id], panel.states, pixel));
  });
}

// The node at the pointer; −1: none is near it.
function nodeAt(panel, event) {
  const box = by("wiring").getBoundingClientRect(), { x, y } = panel.places[panel.l];
  let nearest = -1, best = 14 * 14;
  for (let node = 0; node < x.length; node++) {
    const dx = x[node] * box.width - (event.clientX - box.left);
    const dy = y[node] * box.height - (event.clientY - box.top);
    if (dx * dx + dy * dy < best) { best = dx * dx + dy * dy; nearest = node; }
  }
  return nearest;
}

function cellAt(panel, event) {
  const box = by("wiring").getBoundingClientRect();
  return panel.matrix.cellAt(event.clientX - box.left, event.clientY - box.top);
}

// The bin next to the selected one; the first one if none is selected.
function nextCell({ cell, matrix: { rows, columns } }, right, down) {
  if (!cell) return [0, 0];
  const within = (index, { bins }) => Math.min(Math.max(index, 0), bins.length - 1);
  return [within(cell[0] + down, rows), within(cell[1] + right, columns)];
}

// The node above or below, or that of equal height in the next column; the first one if none is selected.
function neighbour(panel, right, down) {
  const node = panel.selectedNode, { columns } = panel.layer, { y } = panel.places[panel.l];
  const current = columns.findIndex(column => column.start <= node && node < column.end);
  if (current < 0) return columns[0].start;
  if (down) return Math.min(Math.max(node + down, columns[current].start), columns[current].end - 1);
  const { start, end } = columns[Math.min(Math.max(current + right, 0), columns.length - 1)];
  let nearest = start;
  for (let other = start; other < end; other++)
    if (Math.abs(y[other] - y[node]) < Math.abs(y[nearest] - y[node])) nearest = other;
  return right && columns[current].start !== start ? nearest : node;
}

// Keys that an element of a form uses itself.
function isFormKey({ target, key }) {
  if (target.tagName === "SELECT") return true;
  if (target.tagName === "BUTTON" || target.type === "checkbox") return key === " " || key === "Enter";
  return target.type === "range" && (/^(Arrow|Page)/.test(key) || key === "Home" || key === "End");
}

function pressed(panel, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isFormKey(event)) {
    if (event.target === by("slider")) panel.play(false);
    return;
  }
  const strength = by("strength");
  const more = change => {
    if (panel.isMatrix) return;
    strength.value = Number(strength.value) + change;
    panel.followSlider();
  };
  const step = (right, down) => () => {
    if (panel.isMatrix) panel.chooseCell(nextCell(panel, right, down));
    else panel.pick(neighbour(panel, right, down));
  };
  const ofPicture = {
    ArrowRight: step(1, 0), ArrowLeft: step(-1, 0), ArrowDown: step(0, 1), ArrowUp: step(0, -1),
    Enter: () => panel.selectedNode < 0 || panel.hold(panel.selectedNode),
  };
  const anywhere = {
    ArrowRight: () => panel.go(panel.s + 1), ArrowLeft: () => panel.go(panel.s - 1),
    Home: () => panel.go(0), End: () => panel.go(panel.states.length - 1),
    " ": () => panel.toggle(), "+": () => more(5), "-": () => more(-5),
    a: () => panel.toggleAll(), m: () => panel.toggleMatrix(),
    Escape: () => { panel.chooseCell(null); if (panel.held >= 0) panel.hold(-1); },
  };
  const action = (event.target === by("wiring") && ofPicture[event.key]) || anywhere[event.key];
  if (!action) return;
  action();
  event.preventDefault();
}
