// One run: two of teacher, student and error under a slider, its worst frames and all its figures.

function picture(source, width, alt) {
  return element("img", { src: source, alt, class: width <= 160 ? "small" : null, draggable: "false" });
}

function comparison(run, shot, left, right) {
  const under = picture(shot.uris[right], shot.width, run.references[right]);
  const over = picture(shot.uris[left], shot.width, run.references[left]);
  const rule = element("div", { class: "rule" });
  const range = element("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": "where the two pictures meet" });
  const move = () => {
    over.style.clipPath = `inset(0 ${100 - range.value}% 0 0)`;
    rule.style.left = `${range.value}%`;
  };
  range.addEventListener("input", move);
  move();
  const names = element("div", { class: "names" }, element("span", {}, `← ${run.references[left]}`), element("span", {}, `${run.references[right]} →`));
  return [element("div", { class: "compare" }, under, over, rule, range), names];
}

function toggles(labels, chosen, choose) {
  const buttons = labels.map((label, n) => {
    const button = element("button", { type: "button", "aria-pressed": n === chosen }, label);
    button.addEventListener("click", () => choose(n));
    return button;
  });
  return element("div", { class: "modes" }, ...buttons);
}

function pictures(run) {
  if (!run.pictures.length) return nothing("No pictures of this run's evaluation.");
  const PAIRS = [[0, 1], [0, 2], [1, 2]];
  const place = element("div");
  const draw = (shotAt, pairAt) => {
    const shot = run.pictures[shotAt];
    const name = shot.name === null ? "" : ` (${shot.name})`;
    const words = `frame ${shot.frame}${name}${shot.psnr === null ? "" : `: ${decibels(shot.psnr)}`}`;
    place.replaceChildren(
      toggles(run.pictures.map((each) => each.kind), shotAt, (n) => draw(n, pairAt)),
      toggles(PAIRS.map((pair) => pair.map((n) => run.references[n]).join(" | ")), pairAt, (n) => draw(shotAt, n)),
      ...comparison(run, shot, ...PAIRS[pairAt]), element("figcaption", {}, words));
  };
  draw(0, 0);
  return place;
}

function chooseRun(key, scroll) {
  const run = data.runs.find((each) => each.key === key);
  if (!run) return;
  byId("chosen").value = key;
  const mark = run.mark ? [element("p", {}, element("span", { class: "mark" }, run.mark[0]), ` ${run.mark[1]}`)] : [];
  const facts = [data.stages[run.stage], run.student, run.parameters && `${figure(run.parameters)} parameters`, run.measuredOn];
  byId("detail").replaceChildren(
    element("h3", {}, run.key, " ", element("small", {}, facts.filter(Boolean).join(" · "))), ...mark,
    element("div", { class: "shots" }, pictures(run), element("div", {}, ...figureTable("Worst frames", run.worst))),
    ...figureTable("Parity: student, teacher, ratio", run.parity), ...figureTable("All evaluations", run.rows),
    ...figureTable("Made with", run.versions.length ? { columns: ["what", "value"], rows: run.versions } : null));
  if (scroll) byId("run").scrollIntoView({ block: "start" });
}

function drawGallery(runs) {
  const shown = runs.filter((run) => run.pictures.length);
  const psnr = (run) => run.pictures[0].psnr ?? Infinity;
  shown.sort((a, b) => (psnr(a) === psnr(b) ? 0 : psnr(a) - psnr(b)));
  const tiles = shown.map((run) => {
    const shot = run.pictures[0];
    const words = [element("span", {}, ...breakable(run.key)), element("br"), shot.psnr === null ? `frame ${shot.frame}` : decibels(shot.psnr)];
    const tile = element("button", { type: "button" }, picture(shot.uris[1], shot.width, run.references[1]), ...words);
    tile.addEventListener("click", () => chooseRun(run.key, true));
    return tile;
  });
  byId("gallery").replaceChildren(...(tiles.length ? tiles : [nothing("No pictures.")]));
}
