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
    [this.scale, this.strip, this.background] = [COARSEST, 8, "run"];
    followInput(this.canvas, this.camera, () => this.moved());
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }

  moved() {
    [this.dirty, this.movedAt] = [true, performance.now()];
    if (!this.running) this.#run();
  }

  #resize() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((side) => Math.max(1, Math.round(side * devicePixelRatio)));
    if (this.canvas.width === width && this.canvas.height === height) return;
    [this.canvas.width, this.canvas.height] = [width, height];
    this.moved();
  }

  /** Draws until nothing has moved and the picture is whole; a draw is begun when the one before is there. */
  async #run() {
    this.running = true;
    while (this.dirty || this.row < this.canvas.height) {
      if (this.dirty) await this.#drawCoarse();
      else if (performance.now() - this.movedAt > REST_MS) await this.#refine();
      else await new Promise(requestAnimationFrame);
    }
    this.running = false;
  }

  async #drawCoarse() {
    const { width, height } = this.canvas, scale = this.scale;
    [this.dirty, this.row, this.spent] = [false, scale === 1 && this.#rays() === 1 ? height : 0, 0];
    const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    const spent = await this.#timed(() => this.renderer.drawCoarse(this.#view(...size), ...size));
    this.#tell(...size, spent);
    this.scale = Math.min(1, Math.max(COARSEST, scale * Math.min(1.5, Math.max(0.5, Math.sqrt(PATIENCE_MS / spent)))));
  }

  async #refine() {
    const { width, height } = this.canvas, first = this.row, last = Math.min(height, first + this.strip), rays = this.#rays();
    this.row = last;
    const spent = await this.#timed(() => this.renderer.drawMeans(this.#view(width, height), width, height, rays, height - last, height - first));
    this.spent += spent;
    this.strip = Math.max(1, Math.round(this.strip * Math.min(2, Math.max(0.5, PATIENCE_MS / spent))));
    if (last === height) this.#tell(width, height, this.spent, rays);
  }

  async #timed(work) {
    const start = performance.now();
    work();
    await this.renderer.finished();
    return performance.now() - start;
  }

  /** Along a side of a pixel at rest: as in the student's figures, but one where pixels are far finer than in training, or too many. */
  #rays() {
    const { width, height } = this.canvas, trained = data.start.focal[0] * data.start.width;
    const fine = lensFor(width, height).fx / trained * this.camera.closeness() >= data.fine;
    return fine || data.rays * Math.max(width, height) > this.renderer.widest ? 1 : data.rays;
  }

  #tell(width, height, spent, rays = 1) {
    performance.mark("picture");
    byId("status").textContent = `${width} × ${height} pixels${rays > 1 ? ` of ${rays} × ${rays} rays` : ""} in ${spent < 1000 ? `${Math.round(spent)} ms` : `${(spent / 1000).toFixed(1)} s`}`;
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
  byId("full").hidden = !document.fullscreenEnabled; // as on an iPhone
  byId("full").addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : byId("stage").requestFullscreen()));
  /** For scripts: RGBA bytes, rows from above, seen from a camera-to-world pose (four rows; it looks down -z). */
  window.render = (pose, width, height, lens = lensFor(width, height)) => Array.from(renderer.picture({ pose, lens, background: BACKGROUNDS.run }, width, height, data.rays));
  return viewer;
}

function fail(error) {
  byId("status").textContent = error.message;
  byId("stage").classList.add("failed");
}

window.addEventListener("unhandledrejection", (event) => fail(event.reason));
window.ready = start();
