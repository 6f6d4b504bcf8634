// A camera that goes round about a point: by mouse, fingers, wheel and keys.

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const sum = (...terms) => [0, 1, 2].map((axis) => terms.reduce((total, [factor, vector]) => total + factor * vector[axis], 0));
const unit = (vector) => sum([1 / Math.hypot(...vector), vector]);
const MOST_PITCH = 1.5;

class OrbitCamera {
  /** start: eye, target and up in the scene's units. */
  constructor(start) {
    this.start = start;
    this.up = unit(start.up);
    const offset = sum([1, start.eye], [-1, start.target]);
    this.ahead = unit(sum([1, offset], [-dot(offset, this.up), this.up]));
    this.aside = cross(this.up, this.ahead);
    this.reset();
  }

  reset() {
    const offset = sum([1, this.start.eye], [-1, this.start.target]);
    this.target = [...this.start.target];
    this.distance = Math.hypot(...offset);
    this.yaw = 0;
    this.pitch = Math.asin(dot(offset, this.up) / this.distance);
  }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.min(MOST_PITCH, Math.max(-MOST_PITCH, this.pitch + pitch));
  }

  zoom(factor) {
    const whole = this.#whole();
    this.distance = Math.min(20 * whole, Math.max(whole / 100, this.distance * factor));
  }

  /** How much larger things at the target look than at the start. */
  closeness() {
    return this.#whole() / this.distance;
  }

  /** Moves the target across the picture, by shares of its distance. */
  pan(right, up) {
    const [x, y] = this.#axes();
    this.target = sum([1, this.target], [-right * this.distance, x], [up * this.distance, y]);
  }

  /** Camera to world, four rows. */
  pose() {
    const [x, y, z] = this.#axes(), eye = sum([1, this.target], [this.distance, z]);
    return [...[0, 1, 2].map((row) => [x[row], y[row], z[row], eye[row]]), [0, 0, 0, 1]];
  }

  #whole() {
    return Math.hypot(...sum([1, this.start.eye], [-1, this.start.target]));
  }

  #axes() {
    const level = sum([Math.cos(this.yaw), this.ahead], [Math.sin(this.yaw), this.aside]);
    const back = sum([Math.cos(this.pitch), level], [Math.sin(this.pitch), this.up]);
    const right = unit(cross(this.up, back));
    return [right, cross(back, right), back];
  }
}

/** Has a camera follow what is done to an element; calls moved after each change. */
function followInput(element, camera, moved) {
  const fingers = new Map();
  const scale = () => 1 / Math.min(element.clientWidth, element.clientHeight);
  const spread = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const middle = (points) => [0, 1].map((axis) => points.reduce((total, point) => total + point[axis], 0) / points.length);
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  element.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = [...fingers.values()];
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = [...fingers.values()], [from, to] = [middle(before), middle(after)];
    const [right, down] = [(to[0] - from[0]) * scale(), (to[1] - from[1]) * scale()];
    if (after.length === 2) camera.zoom(spread(before) / Math.max(1, spread(after)));
    if (after.length > 1 || event.shiftKey || event.buttons & 6) camera.pan(right, down);
    else camera.turn(-4 * right, 4 * down);
    moved();
  });
  for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, (event) => fingers.delete(event.pointerId));
  element.addEventListener("contextmenu", (event) => event.preventDefault());
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    camera.zoom(Math.exp(event.deltaY * (event.deltaMode ? 0.05 : 0.0015)));
    moved();
  }, { passive: false });
  const keys = {
    ArrowLeft: () => camera.turn(-0.1, 0), ArrowRight: () => camera.turn(0.1, 0),
    ArrowUp: () => camera.turn(0, 0.1), ArrowDown: () => camera.turn(0, -0.1),
    "+": () => camera.zoom(0.9), "=": () => camera.zoom(0.9), "-": () => camera.zoom(1 / 0.9), r: () => camera.reset(),
  };
  element.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
    moved();
  });
}
