// PSNR over training, and PSNR against FPS and size; coloured, and in the scatter plots shaped, by stage.

function drawCurves(runs) {
  const place = byId("curves");
  const by = byId("axis").value;
  const usable = (run, n) => run.curve[by][n] !== null;
  const drawn = runs.filter((run) => run.curve && run.curve.psnr.some((_, n) => usable(run, n)));
  if (!drawn.length) return place.replaceChildren(nothing("No training log of these runs has it."));
  const points = drawn.map((run) => run.curve.psnr.map((psnr, n) => [run.curve[by][n], psnr]).filter((p) => p[0] !== null));
  const all = points.flat();
  const names = [by === "seconds" ? "training time (s)" : "training steps", "batch PSNR (dB)"];
  const [width, height] = plotSize(place, 1180, 400);
  const frame = plotFrame(width, height, all.map((p) => p[0]), all.map((p) => p[1]), names, false);
  const lines = drawn.map((run, n) => {
    if (points[n].length === 1) { // a line of one point is nothing to see
      const [[x, y]] = points[n];
      return shape("circle", { class: "line", cx: frame.x(x), cy: frame.y(y), r: 3, style: `stroke: ${colour(run)}` });
    }
    const path = points[n].map((p) => `${frame.x(p[0]).toFixed(1)},${frame.y(p[1]).toFixed(1)}`).join(" ");
    return shape("polyline", { class: "line", points: path, style: `stroke: ${colour(run)}` });
  });
  frame.svg.append(...lines);
  const nearest = (event) => {
    const box = frame.svg.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
    let best = { far: 40 };
    points.forEach((line, run) => line.forEach((p) => {
      const far = Math.hypot(frame.x(p[0]) - x, frame.y(p[1]) - y);
      if (far < best.far) best = { far, run, p };
    }));
    return best;
  };
  frame.svg.addEventListener("mousemove", (event) => {
    const { run, p } = nearest(event);
    lines.forEach((line, n) => line.classList.toggle("dim", run !== undefined && n !== run));
    if (run === undefined) return hideTip();
    showTip(event, `${drawn[run].key}\n${figure(p[0])} ${by === "seconds" ? "s" : "steps"}: ${decibels(p[1])}`);
  });
  frame.svg.addEventListener("mouseleave", () => { hideTip(); lines.forEach((line) => line.classList.remove("dim")); });
  frame.svg.addEventListener("click", (event) => {
    const { run } = nearest(event);
    if (run !== undefined) chooseRun(drawn[run].key, true);
  });
  place.replaceChildren(frame.svg);
}

const OUTLINES = [
  "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0Z", "M-4.5,-4.5h9v9h-9Z", "M0,-6L5.5,4.5H-5.5Z", "M0,-6.5L5.5,0L0,6.5L-5.5,0Z",
  "M0,6L5.5,-4.5H-5.5Z", "M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4Z", "M-5.5,-3h11v6h-11Z",
];
const CROSS = "M-5,-5L5,5M-5,5L5,-5";

function drawScatter(id, runs, key, name, unit) {
  const place = byId(id);
  const drawn = runs.filter((run) => run.psnr !== null && run[key] > 0);
  if (!drawn.length) return place.replaceChildren(nothing(`No run has PSNR and ${name}.`));
  const names = [`${name} (${unit}, logarithmic)`, "PSNR (dB)"];
  const [width, height] = plotSize(place, 580, 380);
  const frame = plotFrame(width, height, drawn.map((run) => run[key]), drawn.map((run) => run.psnr), names, true);
  const stages = Object.keys(data.stages);
  for (const run of drawn) {
    const point = shape("path", {
      class: "point", d: run.mark ? CROSS : OUTLINES[stages.indexOf(run.stage) % OUTLINES.length], "data-run": run.key,
      transform: `translate(${frame.x(run[key])} ${frame.y(run.psnr)})`, style: `stroke: ${colour(run)}; fill: ${colour(run)}`,
    });
    const words = [run.key, data.stages[run.stage], `${decibels(run.psnr)}, ${figure(run[key])} ${unit}`, run.measuredOn];
    if (run.mark) words.push(run.mark[0]);
    point.addEventListener("mousemove", (event) => showTip(event, words.filter(Boolean).join("\n")));
    point.addEventListener("mouseleave", hideTip);
    point.addEventListener("click", () => chooseRun(run.key, true));
    frame.svg.append(point);
  }
  place.replaceChildren(frame.svg);
  if (drawn.length <= 8) nameRuns(frame, drawn.map((run) => [run.name, frame.x(run[key]), frame.y(run.psnr)]), 0.6 * width);
}

// Each name beside its point, or a little above or below; none where others leave no room: the point tells it too.
function nameRuns(frame, points, rightFrom) {
  const taken = [];
  const apart = (a, b) => a.x > b.x + b.width || b.x > a.x + a.width || a.y > b.y + b.height || b.y > a.y + a.height;
  for (const [name, x, y] of points) {
    const right = x > rightFrom;
    const at = { class: "name", x: x + (right ? -9 : 9), "text-anchor": right ? "end" : "start" };
    const text = shape("text", at, name.length > 28 ? `${name.slice(0, 27)}…` : name);
    frame.svg.append(text);
    const isFree = (shift) => {
      text.setAttribute("y", y + shift);
      return taken.every((other) => apart(text.getBBox(), other));
    };
    if ([4, -9, 17, -22, 30].some(isFree)) taken.push(text.getBBox());
    else text.remove();
  }
}
