// Rays of a pinhole camera, sampled in occupied cells, composited front to back: distill/rendering/renderer.py.

uniform usampler3D leaps;  // what a ray may leap at a cell: 0, nothing, it is occupied; 1, the cell; 1 + n, its
                           // block and n - 1 blocks around it; x is the scene's z
uniform mat4 camera_to_world;  // the camera looks down -z
uniform vec4 lens;            // fx, fy, cx, cy in pixels
uniform float height;         // of the picture, pixels
uniform vec4 background;      // premultiplied

out vec4 pixel;

const float LEAST_WEIGHT = 1e-5;  // a sample of less is not worth its colour

// The first of the bins from k on whose middle is in an occupied cell; -1 if none is before `far`.
int next_bin(int k, vec3 origin, vec3 direction, float near, float far) {
  ivec3 shape = textureSize(leaps, 0).zyx;
  vec3 start = (origin - LOWER) / CELL_SIZE, speed = direction / CELL_SIZE;
  vec3 inverse = 1.0 / mix(speed, vec3(1e-12), lessThan(abs(speed), vec3(1e-12)));
  while (true) {
    float t = near + (float(k) + 0.5) * STEP;
    if (t >= far) return -1;
    vec3 place = start + t * speed;
    ivec3 cell = ivec3(floor(place));
    if (any(lessThan(cell, ivec3(0))) || any(greaterThanEqual(cell, shape))) {
      k++;
      continue;
    }
    int leap = int(texelFetch(leaps, cell.zyx, 0).r);
    if (leap == 0) return k;
    // The faces of the empty cell, or of the empty blocks around its own, that the ray leaves by.
    int side = leap == 1 ? 1 : BLOCK, around = max(leap - 2, 0);
    ivec3 low = cell / side - around, high = cell / side + 1 + around;
    vec3 face = vec3(side * ivec3(mix(vec3(low), vec3(high), greaterThan(speed, vec3(0.0)))));
    vec3 leave = (face - place) * inverse;
    float end = t + min(leave.x, min(leave.y, leave.z));
    k = max(k + 1, int(ceil((end - near) / STEP - 0.51)));
  }
}

#if TOGETHER > 1

// The next samples from bin k on that are in one cell of the grid of networks, `most` of them at most: how many.
int next_places(inout int k, int most, vec3 origin, vec3 direction, float near, float far, out vec3 positions[TOGETHER]) {
  int count = 0;
  for (int n = 0; n < TOGETHER && n < most; n++) {
    int bin = next_bin(k, origin, direction, near, far);
    vec3 position = origin + (near + (float(bin) + 0.5) * STEP) * direction;
    if (bin < 0 || n > 0 && cell_of(place_in_grid(position)) != cell_of(place_in_grid(positions[0]))) break;
    positions[n] = position;
    k = bin + 1;
    count++;
  }
  return count;
}

#endif

void main() {
  vec2 at = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec3 local = vec3((at.x - lens.z) / lens.x, (lens.w - at.y) / lens.y, -1.0);
  vec3 origin = camera_to_world[3].xyz, direction = normalize(mat3(camera_to_world) * local);
  vec3 first = (LOWER - origin) / direction, second = (UPPER - origin) / direction;
  vec3 entry_t = min(first, second), exit_t = max(first, second);
  float near = max(max(entry_t.x, max(entry_t.y, entry_t.z)), NEAR);
  float far = min(min(exit_t.x, min(exit_t.y, exit_t.z)), FAR);

  fill_basis(direction);
  vec4 sums[OUTPUTS];
  for (int i = 0; i < OUTPUTS; i++) sums[i] = vec4(0.0);
  vec3 rgb = vec3(0.0);
  float alpha = 0.0, light = 1.0;
  int k = 0;
#if TOGETHER == 1
  vec4 geometry[OUTPUTS];
  for (int taken = 0; taken < MOST_SAMPLES && light > TERMINATION; taken++) {
    k = next_bin(k, origin, direction, near, far);
    if (k < 0) break;
    vec3 position = origin + (near + (float(k) + 0.5) * STEP) * direction;
    k++;
    float left = light * exp(-sample_field(position, geometry) * STEP_IN_UNITS), weight = light - left;
    light = left;
    alpha += weight;
    if (weight > LEAST_WEIGHT) {
#if DEFERRED
      for (int i = 0; i < OUTPUTS; i++) sums[i] += weight * geometry[i];
#else
      rgb += weight * color_of(geometry);
#endif
    }
  }
#else
  vec3 positions[TOGETHER];
  vec4 geometry[TOGETHER * OUTPUTS];
  for (int taken = 0; taken < MOST_SAMPLES && light > TERMINATION;) {
    int count = next_places(k, MOST_SAMPLES - taken, origin, direction, near, far, positions);
    if (count == 0) break;
    taken += count;
    float densities[TOGETHER], weights[TOGETHER], most = 0.0;
    sample_fields(positions, densities, geometry);
    for (int n = 0; n < TOGETHER; n++) {
      weights[n] = n < count && light > TERMINATION ? light - light * exp(-densities[n] * STEP_IN_UNITS) : 0.0;
      light -= weights[n];
      alpha += weights[n];
      most = max(most, weights[n]);
    }
    if (most > LEAST_WEIGHT) {
#if DEFERRED
      for (int n = 0; n < TOGETHER; n++)
        for (int i = 0; i < OUTPUTS; i++) sums[i] += weights[n] * geometry[n * OUTPUTS + i];
#else
      vec3 colors[TOGETHER];
      network_colors(geometry, colors);
      for (int n = 0; n < TOGETHER; n++) rgb += weights[n] * colors[n];
#endif
    }
  }
#endif
#if DEFERRED
  if (alpha > 0.0) {
    vec4 mean[OUTPUTS];
    for (int i = 0; i < OUTPUTS; i++) mean[i] = sums[i] / alpha;
    rgb = alpha * color_of(mean);
  }
#endif
  // A ray that was ended would have met more: what it has met stands for all of it.
  if (1.0 - alpha <= TERMINATION) {
    rgb /= alpha;
    alpha = 1.0;
  }
  pixel = vec4(rgb, alpha) + (1.0 - alpha) * background;
}
