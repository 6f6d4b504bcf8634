// The page: reads the student, shows it coarsely while the camera moves and in full when it rests.

const PATIENCE_MS = 24;      // that a picture, or a strip of it, may take
const REST_MS = 120;         // without a movement before the full picture is begun
const COARSEST = 1 / 16;     // of the picture's sides
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const BACKGROUNDS = { run: [...data.start.background, 1], page: [0, 0, 0, 0] };

class Viewer {
  constructor(renderer) {
    [this.renderer, this.canvas] = [renderer, renderer.canvas];
    this.camera = new OrbitCamera(data.start);
    [this.scale, this.strip, this.background] = [1 / 8, 8, "run"];
    followInput(this.canvas, this.camera, () => this.moved());
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }

  moved() {
    [this.dirty, this.movedAt] = [true, performance.now()];
    if (!this.running) {
      this.running = true;
      requestAnimationFrame(() => this.#frame());
    }
  }

  #resize() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((side) => Math.max(1, Math.round(side * devicePixelRatio)));
    if (this.canvas.width === width && this.canvas.height === height) return;
    [this.canvas.width, this.canvas.height] = [width, height];
    this.moved();
  }

  #frame() {
    const now = performance.now(), { width, height } = this.canvas;
    if (this.dirty) this.#drawCoarse(width, height);
    else if (this.row < height && now - this.movedAt > REST_MS) this.#refine(width, height);
    this.running = this.dirty || this.row < height;
    if (this.running) requestAnimationFrame(() => this.#frame());
  }

  #drawCoarse(width, height) {
    this.dirty = false;
    const [coarseWidth, coarseHeight] = [width, height].map((side) => Math.max(1, Math.round(side * this.scale)));
    const spent = this.#timed(() => this.renderer.drawCoarse(this.#view(coarseWidth, coarseHeight), coarseWidth, coarseHeight));
    [this.row, this.spent] = [this.scale === 1 ? height : 0, this.scale === 1 ? spent : 0];
    this.#tell(coarseWidth, coarseHeight, spent);
    this.scale = Math.min(1, Math.max(COARSEST, this.scale * Math.min(1.5, Math.max(0.5, Math.sqrt(PATIENCE_MS / spent)))));
  }

  #refine(width, height) {
    const last = Math.min(height, this.row + this.strip);
    const spent = this.#timed(() => this.renderer.draw(this.#view(width, height), width, height, height - last, height - this.row));
    this.spent += spent;
    this.row = last;
    this.strip = Math.max(1, Math.round(this.strip * Math.min(2, Math.max(0.5, PATIENCE_MS / spent))));
    if (this.row === height) this.#tell(width, height, this.spent);
  }

  #timed(work) {
    const start = performance.now();
    work();
    this.renderer.finish();
    return Math.max(0.1, performance.now() - start);
  }

  #tell(width, height, spent) {
    byId("status").textContent = `${width} × ${height}, ${spent < 10 ? spent.toFixed(1) : Math.round(spent)} ms`;
  }

  /** The camera's view in a picture of this size, of which the dataset's fits into it. */
  #view(width, height) {
    return { pose: this.camera.pose(), lens: lensFor(width, height), background: BACKGROUNDS[this.background] };
  }
}

function lensFor(width, height) {
  const focal = Math.min(data.start.focal[0] * width, data.start.focal[1] * height);
  return { fx: focal, fy: focal, cx: width / 2, cy: height / 2 };
}

async function readContent() {
  const text = atob(byId("content").textContent), bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function start() {
  const renderer = new StudentRenderer(byId("picture"), byId("shader").textContent.trim(), data.textures, await readContent());
  const viewer = new Viewer(renderer);
  byId("reset").addEventListener("click", () => { viewer.camera.reset(); viewer.moved(); });
  byId("background").addEventListener("click", () => { viewer.background = viewer.background === "run" ? "page" : "run"; viewer.moved(); });
  byId("full").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : byId("stage").requestFullscreen()));
  /** For scripts: RGBA bytes, rows from above, seen from a camera-to-world pose (four rows; it looks down -z). */
  window.render = (pose, width, height, lens = lensFor(width, height)) => Array.from(renderer.picture({ pose, lens, background: BACKGROUNDS.run }, width, height));
  return viewer;
}

window.ready = start().catch((error) => {
  byId("status").textContent = error.message;
  byId("stage").classList.add("failed");
});
