// A grid of tiny networks with biases: kernels/cell_routing.py, kernels/grouped_mlp.py.

const int CELLS = GRID.x * GRID.y * GRID.z;

int color_at;  // texel at which the colour network of the last sample begins

// A cell's density network at a place in it, [-1, 1]: density; and all outputs, raw density last.
float evaluate(int cell, vec3 local, out vec4 geometry[OUTPUTS]) {
  vec4 x[ENCODING];
  x[0] = vec4(local, 0.0);
  vec3 angle = local * (0.5 * PI);
  for (int octave = 0; octave < OCTAVES; octave++) {
    x[1 + 2 * octave] = vec4(sin(angle), 0.0);
    x[2 + 2 * octave] = vec4(cos(angle), 0.0);
    angle *= 2.0;
  }
  density_network(cell * DENSITY_TEXELS, x, geometry);
  color_at = CELLS * DENSITY_TEXELS + (DEFERRED == 1 ? 0 : cell * COLOR_TEXELS);
  return density_of(geometry[RAW / 4][RAW % 4]);
}

vec3 network_color(vec4 geometry[OUTPUTS]) {
  vec4 x[OUTPUTS + BASIS], y[COLORS];
  for (int i = 0; i < OUTPUTS; i++) x[i] = geometry[i];
  for (int i = 0; i < BASIS; i++) x[OUTPUTS + i] = basis[i];
  color_network(color_at, x, y);
  return sigmoid(y[0].xyz);
}

#if BLENDED

// As below; near a face the mixture of the media of both cells. Not deferred, its colour takes the features' place.
float sample_field(vec3 position, out vec4 geometry[OUTPUTS]) {
  vec3 place = (position - LOWER) * vec3(GRID) / (UPPER - LOWER);
  ivec3 cell = clamp(ivec3(floor(place)), ivec3(0), GRID - 1);
  vec3 offset = place - vec3(cell) - 0.5, to_face = 0.5 - abs(offset);
  ivec3 neighbour = cell + ivec3(mix(vec3(1.0), vec3(-1.0), lessThan(offset, vec3(0.0))));
  vec3 given = vec3(0.0);
  for (int axis = 0; axis < 3; axis++)
    if (to_face[axis] < BLEND && neighbour[axis] >= 0 && neighbour[axis] < GRID[axis])
      given[axis] = 0.5 - to_face[axis] / (2.0 * BLEND);
  float total = 0.0;
  for (int i = 0; i < OUTPUTS; i++) geometry[i] = vec4(0.0);
  for (int beyond = 0; beyond < 8; beyond++) {
    bvec3 across = bvec3(beyond & 1, beyond & 2, beyond & 4);
    vec3 shares = mix(1.0 - given, given, across);
    float share = shares.x * shares.y * shares.z;
    if (share == 0.0) continue;
    ivec3 asked = ivec3(mix(vec3(cell), vec3(neighbour), across));
    vec4 features[OUTPUTS];
    share *= evaluate((asked.x * GRID.y + asked.y) * GRID.z + asked.z, 2.0 * (place - vec3(asked)) - 1.0, features);
    total += share;
#if !DEFERRED
    features[0].xyz = network_color(features);
#endif
    for (int i = 0; i < OUTPUTS; i++) geometry[i] += share * features[i];
  }
  for (int i = 0; i < OUTPUTS; i++) geometry[i] /= max(total, LEAST_DENSITY);
  return total;
}

vec3 color_of(vec4 geometry[OUTPUTS]) { return DEFERRED == 1 ? network_color(geometry) : geometry[0].xyz; }

#else

// Density at a place, and what its colour is made of.
float sample_field(vec3 position, out vec4 geometry[OUTPUTS]) {
  vec3 place = (position - LOWER) * vec3(GRID) / (UPPER - LOWER);
  ivec3 cell = clamp(ivec3(floor(place)), ivec3(0), GRID - 1);
  return evaluate((cell.x * GRID.y + cell.y) * GRID.z + cell.z, 2.0 * (place - vec3(cell)) - 1.0, geometry);
}

vec3 color_of(vec4 geometry[OUTPUTS]) { return network_color(geometry); }

#endif
