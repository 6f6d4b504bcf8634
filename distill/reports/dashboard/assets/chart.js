// A plot's frame: linear or logarithmic axes with round ticks, names and units. `at` maps values to its pixels.

const MARGIN = { left: 58, right: 18, top: 14, bottom: 46 };
const TICK_ROOM = 56; // pixels that a tick's figure wants along its axis

function linearTicks(low, high, most) {
  const raw = (high - low) / Math.min(6, most) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) ticks.push(n * step + 0); // + 0: no minus zero
  return ticks;
}

function logTicks(low, high, most) {
  if (high / low < 4) return linearTicks(low, high, most);
  const found = (factors) => {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const factor of factors) ticks.push(factor * 10 ** power);
    return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  };
  const ticks = [[1, 2, 5], [1, 3]].map(found).find((each) => each.length <= most);
  return ticks || found([1]);
}

function axis(values, size, from, log) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) [low, high] = [low / 1.3, high * 1.3];
  else { const room = (high - low) * 0.06 || 1; [low, high] = [low >= 0 && low < room ? 0 : low - room, high + room]; }
  const scale = log ? Math.log : (value) => value;
  const share = (value) => (scale(value) - scale(low)) / (scale(high) - scale(low));
  const ticks = (log ? logTicks : linearTicks)(low, high, Math.abs(size) / TICK_ROOM);
  return { at: (value) => from + size * share(value), ticks };
}

// A plot is as wide as its place, so that its words stay as large as the page's on a phone too.
function plotSize(place, widest, tallest) {
  const width = Math.max(260, Math.min(widest, place.clientWidth || widest));
  return [width, Math.max(260, Math.min(tallest, Math.round(width * 0.66)))];
}

function plotFrame(width, height, xs, ys, names, log) {
  const x = axis(xs, width - MARGIN.left - MARGIN.right, MARGIN.left, log);
  const y = axis(ys, MARGIN.top + MARGIN.bottom - height, height - MARGIN.bottom, false);
  const [bottom, right] = [height - MARGIN.bottom, width - MARGIN.right];
  const label = `${names[1]} against ${names[0]}`;
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of y.ticks) {
    svg.append(shape("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y.at(tick), y2: y.at(tick) }));
    svg.append(shape("text", { x: MARGIN.left - 8, y: y.at(tick) + 4, "text-anchor": "end" }, figure(tick)));
  }
  for (const tick of x.ticks) {
    svg.append(shape("line", { class: "grid", x1: x.at(tick), x2: x.at(tick), y1: MARGIN.top, y2: bottom }));
    svg.append(shape("text", { x: x.at(tick), y: bottom + 18, "text-anchor": "middle" }, figure(tick)));
  }
  const middle = (MARGIN.left + right) / 2;
  svg.append(shape("text", { class: "title", x: middle, y: height - 8, "text-anchor": "middle" }, names[0]));
  const up = `translate(15 ${(MARGIN.top + bottom) / 2}) rotate(-90)`;
  svg.append(shape("text", { class: "title", transform: up, "text-anchor": "middle" }, names[1]));
  return { svg, x: x.at, y: y.at };
}

const nothing = (text) => element("p", { class: "empty" }, text);
