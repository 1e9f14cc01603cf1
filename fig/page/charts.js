// The curves below the picture: one value a state, with the state at hand marked.

function frame(canvas, count) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  const left = 38, right = canvas.clientWidth - 8, top = 8, bottom = canvas.clientHeight - 18;
  return { pen, left, right, top, bottom, x: s => count > 1 ? left + (right - left) * s / (count - 1) : left };
}

function grid(box, highest, style, labels) {
  const { pen, left, right, top, bottom } = box;
  pen.strokeStyle = style.line;
  pen.fillStyle = style.faint;
  pen.textAlign = "right";
  for (const part of [0, 0.5, 1]) {
    const y = bottom - (bottom - top) * part;
    pen.beginPath(); pen.moveTo(left, y); pen.lineTo(right, y); pen.stroke();
    pen.fillText(Math.round(highest * part).toLocaleString("en"), left - 5, y + 4);
  }
  pen.textAlign = "left"; pen.fillText(labels[0], left, bottom + 14);
  pen.textAlign = "right"; pen.fillText(labels[1], right, bottom + 14);
}

function curve(box, values, highest, colour, dashed) {
  const { pen, top, bottom, x } = box;
  pen.strokeStyle = colour; pen.fillStyle = colour; pen.lineWidth = 1.8; pen.setLineDash(dashed ? [5, 3] : []);
  pen.beginPath();
  let started = false;
  values.forEach((value, s) => {
    if (value === undefined) return;
    const y = bottom - (bottom - top) * value / highest;
    if (started) pen.lineTo(x(s), y); else pen.moveTo(x(s), y);
    started = true;
    if (values.length < 80) pen.fillRect(x(s) - 1.5, y - 1.5, 3, 3);
  });
  pen.stroke();
  pen.setLineDash([]);
}

function bars(box, values, highest, colour) {
  const { pen, top, bottom, x } = box;
  pen.fillStyle = colour;
  const width = Math.max(1, 0.5 * (x(1) - x(0)));
  values.forEach((value, s) => {
    const height = highest ? (bottom - top) * value / highest : 0;
    pen.fillRect(x(s) - width / 2, bottom - height, width, height);
  });
}

function cursor(box, s, colour) {
  const { pen, top, bottom, x } = box;
  pen.strokeStyle = colour; pen.lineWidth = 1.5;
  pen.beginPath(); pen.moveTo(x(s), top); pen.lineTo(x(s), bottom); pen.stroke();
}

function drawCharts(states, l, now, style) {
  const labels = [`step ${states[0].numbers.step}`, `step ${states.at(-1).numbers.step}`];
  const accuracy = frame(document.getElementById("accuracy"), states.length);
  grid(accuracy, 100, style, labels);
  curve(accuracy, states.map(state => state.numbers.train_accuracy), 100, style.plus, false);
  curve(accuracy, states.map(state => state.numbers.val_accuracy), 100, style.minus, true);
  cursor(accuracy, now, style.ink);
  const alive = frame(document.getElementById("alive"), states.length);
  const fresh = states.map(state => state.layers[l].numFresh), live = states.map(state => state.layers[l].numLive);
  const highest = Math.max(...live, 1);
  grid(alive, highest, style, labels);
  document.getElementById("most").textContent = Math.max(...fresh).toLocaleString("en");
  bars(alive, fresh, Math.max(...fresh), style.fresh);
  curve(alive, live, highest, style.ink, false);
  cursor(alive, now, style.ink);
}
