// The student on the GPU: its values as textures, its shader, pictures from any camera.

const VERTEX = `#version 300 es
void main() { gl_Position = vec4(4.0 * float(gl_VertexID & 1) - 1.0, 2.0 * float(gl_VertexID & 2) - 1.0, 0.0, 1.0); }`;

class StudentRenderer {
  /** canvas: to draw on; shader: of the fragments; textures: where the student's values are in content, an ArrayBuffer. */
  constructor(canvas, shader, textures, content) {
    const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true, powerPreference: "high-performance" });
    if (!gl) throw new Error("This browser has no WebGL 2.");
    [this.gl, this.canvas] = [gl, canvas];
    this.program = this.#program(shader);
    gl.useProgram(this.program);
    textures.forEach((texture, unit) => this.#store(texture, unit, content));
    this.uniform = {};
    for (const name of ["camera_to_world", "lens", "height", "background"]) this.uniform[name] = gl.getUniformLocation(this.program, name);
    gl.bindVertexArray(gl.createVertexArray());
    this.widest = gl.getParameter(gl.MAX_TEXTURE_SIZE);  // of what is not the canvas, pixels
    // What is scaled when it is drawn, and what a script asks for.
    [this.scratch, this.whole] = [0, 1].map(() => ({ texture: gl.createTexture(), framebuffer: gl.createFramebuffer(), width: 0, height: 0 }));
    gl.activeTexture(gl.TEXTURE0 + textures.length);
  }

  #program(fragment) {
    const gl = this.gl, program = gl.createProgram();
    for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(`The shader does not compile: ${gl.getShaderInfoLog(shader)}`);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`The shader does not link: ${gl.getProgramInfoLog(program)}`);
    return program;
  }

  #store({ name, type, widened, channels, size, offset, length }, unit, content) {
    const gl = this.gl, [width, height, depth] = size;
    const target = type === "uint8" ? gl.TEXTURE_3D : gl.TEXTURE_2D;
    this.#check(Math.max(...size), type === "uint8" ? gl.MAX_3D_TEXTURE_SIZE : gl.MAX_TEXTURE_SIZE, "texels along a side");
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(target, gl.createTexture());
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    if (type === "uint8") {
      const values = new Uint8Array(content, offset, length);
      gl.texImage3D(target, 0, gl.R8UI, width, height, depth, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, values);
    } else if (widened) {
      const values = Float32Array.from(new Uint16Array(content, offset, length / 2), halfToFloat);
      gl.texImage2D(target, 0, gl.RGBA32F, width, height, 0, gl.RGBA, gl.FLOAT, values);
    } else {
      const [inside, format] = { 1: [gl.R16F, gl.RED], 2: [gl.RG16F, gl.RG], 4: [gl.RGBA16F, gl.RGBA] }[channels];
      const values = new Uint16Array(content, offset, length / 2);
      gl.texImage2D(target, 0, inside, width, height, 0, format, gl.HALF_FLOAT, values);
    }
    for (const key of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(target, key, gl.NEAREST);
    gl.uniform1i(gl.getUniformLocation(this.program, name), unit);
  }

  #check(wanted, limit, what) {
    const most = this.gl.getParameter(limit);
    if (wanted > most) throw new Error(`This student needs ${wanted} ${what}, this device has ${most}.`);
  }

  /** Draws rows first .. last - 1, from below, of a picture on what is bound. pose: camera to world, rows of columns. */
  draw({ pose, lens, background }, width, height, first = 0, last = height) {
    const gl = this.gl;
    gl.viewport(0, 0, width, height);
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, first, width, last - first);
    gl.uniformMatrix4fv(this.uniform.camera_to_world, true, pose.flat());
    gl.uniform4f(this.uniform.lens, lens.fx, lens.fy, lens.cx, lens.cy);
    gl.uniform1f(this.uniform.height, height);
    gl.uniform4fv(this.uniform.background, background);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disable(gl.SCISSOR_TEST);
  }

  /** Draws a picture of another size and fills the canvas with it. */
  drawCoarse(view, width, height) {
    this.#bind(this.scratch, width, height);
    this.draw(view, width, height);
    this.#scale(null, [0, 0, this.canvas.width, this.canvas.height]);
    this.gl.bindFramebuffer(this.gl.FRAMEBUFFER, null);
  }

  /**
   * As draw, but each pixel is the mean of rays x rays: 1 or 2 along its side, 1 where the device has no picture so large.
   * target: null, the canvas, or a framebuffer.
   */
  drawMeans(view, width, height, rays, first = 0, last = height, target = null) {
    const gl = this.gl, rows = last - first, { fx, fy, cx, cy } = view.lens;
    if (rays === 1 || rays * Math.max(width, rows) > this.widest) {
      gl.bindFramebuffer(gl.FRAMEBUFFER, target);
      this.draw(view, width, height, first, last);
    } else {
      // These rows alone: a finer picture of their height, whose lens is at another row from above.
      const lens = { fx: rays * fx, fy: rays * fy, cx: rays * cx, cy: rays * (cy - (height - last)) };
      this.#bind(this.scratch, rays * width, rays * rows);
      this.draw({ ...view, lens }, rays * width, rays * rows);
      this.#scale(target, [0, first, width, last]);
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  /** RGBA bytes of a picture whose pixels are means of rays x rays, rows from above; the canvas stays as it is. */
  picture(view, width, height, rays) {
    const gl = this.gl, rows = new Uint8ClampedArray(4 * width * height), flipped = new Uint8Array(rows.length);
    this.#bind(this.whole, width, height);
    this.drawMeans(view, width, height, rays, 0, height, this.whole.framebuffer);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.whole.framebuffer);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, flipped);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    for (let row = 0; row < height; row++) rows.set(flipped.subarray(4 * width * row, 4 * width * (row + 1)), 4 * width * (height - 1 - row));
    return rows;
  }

  /** Resolves when all that was drawn is there; the page goes on meanwhile. */
  finished() {
    const gl = this.gl, fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    return new Promise((resolve, reject) => {
      const look = () => {
        if (gl.isContextLost()) reject(new Error("The GPU was lost: load the page again."));
        else if (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) setTimeout(look, 2);
        else resolve(gl.deleteSync(fence));
      };
      setTimeout(look, 0);
    });
  }

  /** Fills corners [left, bottom, right, top] of a framebuffer with the scratch picture; at 2:1 linear is the mean of 2 x 2. */
  #scale(target, corners) {
    const gl = this.gl, { framebuffer, width, height } = this.scratch;
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, framebuffer);
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, target);
    gl.blitFramebuffer(0, 0, width, height, ...corners, gl.COLOR_BUFFER_BIT, gl.LINEAR);
  }

  #bind(target, width, height) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.framebuffer);
    if (target.width === width && target.height === height) return;
    [target.width, target.height] = [width, height];
    gl.bindTexture(gl.TEXTURE_2D, target.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.texture, 0);
  }
}

/** The number that 16 bits stand for (IEEE 754). */
function halfToFloat(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
