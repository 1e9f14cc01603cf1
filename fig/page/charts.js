// The curves below the picture, by training step, with a cursor at the current state.

const INSET = 6, WIDEST_BAR = 8;

// first, last: steps at the sides; scales: 2 if the right side is labelled, too.
function frame(canvas, first, last, scales) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  const left = 44, right = canvas.clientWidth - (scales === 2 ? 44 : 8);
  const top = 8, bottom = canvas.clientHeight - 18;
  const length = right - left - 2 * INSET;
  const x = step => left + INSET + (last > first ? length * (step - first) / (last - first) : 0);
  const y = fraction => bottom - (bottom - top) * fraction;
  return { canvas, pen, left, right, top, bottom, x, y, ratio };
}

function grid({ pen, left, right, bottom, y }, style, labels) {
  pen.strokeStyle = style.line;
  for (const fraction of [0, 0.5, 1]) {
    pen.beginPath(); pen.moveTo(left, y(fraction)); pen.lineTo(right, y(fraction)); pen.stroke();
  }
  pen.fillStyle = style.faint;
  pen.textAlign = "left"; pen.fillText(labels[0], left, bottom + 14);
  pen.textAlign = "right"; pen.fillText(labels[1], right, bottom + 14);
}

function scale({ pen, left, right, y }, highest, colour, onRight) {
  pen.fillStyle = colour;
  pen.textAlign = onRight ? "left" : "right";
  for (const fraction of [0, 0.5, 1])
    pen.fillText((highest * fraction).toLocaleString("en"), onRight ? right + 5 : left - 5, y(fraction) + 4);
}

// points: [step, value]
function curve({ pen, x, y }, points, highest, colour, dashed) {
  pen.strokeStyle = colour; pen.fillStyle = colour; pen.lineWidth = 1.8;
  pen.setLineDash(dashed ? [5, 3] : []);
  pen.beginPath();
  points.forEach(([step, value], i) => {
    if (i) pen.lineTo(x(step), y(value / highest)); else pen.moveTo(x(step), y(value / highest));
    if (points.length < 80) pen.fillRect(x(step) - 1.5, y(value / highest) - 1.5, 3, 3);
  });
  pen.stroke();
  pen.setLineDash([]);
}

function bars({ pen, left, right, bottom, x, y }, points, highest, colour) {
  pen.fillStyle = colour;
  const width = Math.max(1, Math.min(WIDEST_BAR, 0.5 * (right - left) / points.length));
  for (const [step, value] of points) {
    const top = y(value / highest);
    pen.fillRect(x(step) - width / 2, top, width, bottom - top);
  }
}

function cursor({ pen, top, bottom, x }, step, colour) {
  pen.strokeStyle = colour; pen.lineWidth = 1.5;
  pen.beginPath(); pen.moveTo(x(step), top); pen.lineTo(x(step), bottom); pen.stroke();
}

// Points of the curves: accuracies of all recorded states, counts of the states in the page.
function curvesOf(head, states, l) {
  const { steps, train, val } = head.recorded;
  const recorded = values => steps.map((step, i) => [step, values[i]]).filter(([, value]) => value !== null);
  const counted = key => states.map(state => [state.numbers.step, state.layers[l][key]]);
  const live = counted("numLive"), fresh = counted("numFresh").slice(1);
  return { train: recorded(train), val: recorded(val), live, fresh };
}

// Returns the frames, which map steps and values to pixels.
function drawCharts(head, states, l, now, style) {
  const curves = curvesOf(head, states, l), step = states[now].numbers.step;
  const { steps } = head.recorded, ends = [steps[0], steps.at(-1)];
  const labels = ends.map(end => `step ${end.toLocaleString("en")}`);
  const even = points => Math.max(2, ...points.map(([, value]) => value + value % 2));
  const accuracy = frame(document.getElementById("accuracy"), ...ends, 1);
  grid(accuracy, style, labels);
  scale(accuracy, 100, style.faint, false);
  curve(accuracy, curves.train, 100, style.plus, false);
  curve(accuracy, curves.val, 100, style.minus, true);
  cursor(accuracy, step, style.ink);
  const alive = frame(document.getElementById("alive"), ...ends, 2);
  const mostLive = even(curves.live), mostFresh = even(curves.fresh);
  grid(alive, style, labels);
  scale(alive, mostLive, style.faint, false);
  scale(alive, mostFresh, style.fresh, true);
  bars(alive, curves.fresh, mostFresh, style.fresh);
  curve(alive, curves.live, mostLive, style.ink, false);
  cursor(alive, step, style.ink);
  return { accuracy, alive, mostLive, mostFresh };
}

// The state whose step is drawn nearest to this pixel.
function nearestState({ x }, states, pixel) {
  const distances = states.map(state => Math.abs(x(state.numbers.step) - pixel));
  return distances.indexOf(Math.min(...distances));
}
