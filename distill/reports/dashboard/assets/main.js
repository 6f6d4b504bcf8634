// The filter that all parts of the page share, and the start.

const off = new Set();

function visibleRuns() {
  const [scene, words] = [byId("scene").value, byId("search").value.toLowerCase()];
  const fits = (run) => (scene === "*" || run.scene === scene) && !off.has(run.stage) && run.key.toLowerCase().includes(words);
  return data.runs.filter(fits);
}

function draw() {
  const runs = visibleRuns();
  const keys = new Set(runs.map((run) => run.key));
  for (const section of document.querySelectorAll(".stage")) {
    const rows = [...section.querySelectorAll("tbody tr")];
    for (const row of rows) row.hidden = !keys.has(row.dataset.run);
    section.hidden = rows.every((row) => row.hidden);
  }
  byId("count").textContent = `${runs.length} of ${data.runs.length} runs`;
  drawCurves(runs);
  drawScatter("speed", runs, "fps", "speed", "frames/s");
  drawScatter("size", runs, "size", "size", "MiB");
  drawGallery(runs);
}

function tile(value, name, bad) {
  return element("div", { class: bad ? "tile bad" : "tile" }, element("b", {}, value), element("span", {}, name));
}

function start() {
  const scenes = [...new Set(data.runs.map((run) => run.scene))];
  byId("scene").append(element("option", { value: "*" }, "all"), ...scenes.map((scene) => element("option", { value: scene }, scene || "(none)")));
  byId("chosen").append(...data.runs.map((run) => element("option", { value: run.key }, run.key)));
  for (const stage of Object.keys(data.stages).filter((each) => data.runs.some((run) => run.stage === each))) {
    const dot = element("i", { style: `background: ${colour({ stage })}` });
    const chip = element("button", { type: "button", class: "chip", "aria-pressed": true }, dot, data.stages[stage]);
    chip.addEventListener("click", () => {
      if (!off.delete(stage)) off.add(stage);
      chip.setAttribute("aria-pressed", !off.has(stage));
      draw();
    });
    byId("stages").append(chip);
  }
  const worthless = data.runs.filter((run) => run.mark).length;
  byId("tiles").append(tile(data.runs.length, "runs"), tile(data.runs.filter((run) => run.psnr !== null).length, "evaluated"),
    tile(worthless, "collapsed, likely blank or far from the teacher", worthless > 0));
  for (const scene of scenes) { // frames trained on flatter
    const sound = data.runs.filter((run) => run.scene === scene && run.psnr !== null && !run.mark && run.measuredOn.startsWith("holdout") && run.stage !== "teacher" && !run.isBlock);
    if (!sound.length) continue;
    const best = sound.reduce((a, b) => (b.psnr > a.psnr ? b : a)); // of views of any width against anything: it says which
    const where = [best.name, best.measuredOn.replace("holdout, ", "against "), best.width && `${best.width} px wide`].filter(Boolean).join(", ");
    byId("tiles").append(tile(decibels(best.psnr), `best held-out PSNR of ${scene || "no scene"}: ${where}`));
  }
  document.querySelectorAll(".stage table").forEach(makeSortable);
  document.querySelectorAll(".link").forEach((link) => link.addEventListener("click", () => chooseRun(link.dataset.run, true)));
  byId("chosen").addEventListener("change", () => chooseRun(byId("chosen").value, false));
  for (const id of ["scene", "axis"]) byId(id).addEventListener("change", draw);
  byId("search").addEventListener("input", draw);
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
  draw();
  const first = data.runs.find((run) => run.pictures.length) || data.runs[0];
  if (first) chooseRun(first.key, false);
}

start();
