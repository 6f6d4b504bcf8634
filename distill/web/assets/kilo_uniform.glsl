// A grid of tiny networks with biases: kernels/networks/cell_routing.py, kernels/networks/grouped_mlp.py.

const int INPUTS = ENCODING + HARMONICS;
const int CELLS = GRID.x * GRID.y * GRID.z;
const int SHADED = DEFERRED == 1 ? 1 : TOGETHER;  // places that the colour network is evaluated for at once

int color_at;  // texel at which the colour network of the last sample begins

vec3 place_in_grid(vec3 position) { return (position - LOWER) * vec3(GRID) / (UPPER - LOWER); }

ivec3 cell_of(vec3 place) { return clamp(ivec3(floor(place)), ivec3(0), GRID - 1); }

// A cell's density network at places in it, [-1, 1]: all outputs, raw density last.
void evaluate(ivec3 cell, vec3 local[TOGETHER], out vec4 geometry[TOGETHER * OUTPUTS]) {
  vec4 x[TOGETHER * INPUTS];
  for (int n = 0; n < TOGETHER; n++) {
    x[n * INPUTS] = vec4(local[n], 0.0);
    vec3 angle = local[n] * (0.5 * PI);
    for (int octave = 0; octave < OCTAVES; octave++) {
      x[n * INPUTS + 1 + 2 * octave] = vec4(sin(angle), 0.0);
      x[n * INPUTS + 2 + 2 * octave] = vec4(cos(angle), 0.0);
      angle *= 2.0;
    }
    for (int i = 0; i < HARMONICS; i++) x[n * INPUTS + ENCODING + i] = basis[i];
  }
  int number = (cell.x * GRID.y + cell.y) * GRID.z + cell.z;
  density_network(number * DENSITY_TEXELS, x, geometry);
  color_at = CELLS * DENSITY_TEXELS + (DEFERRED == 1 ? 0 : number * COLOR_TEXELS);
}

void network_colors(vec4 geometry[SHADED * OUTPUTS], out vec3 colors[SHADED]) {
  vec4 x[SHADED * (OUTPUTS + BASIS)], y[SHADED * COLORS];
  for (int n = 0; n < SHADED; n++) {
    for (int i = 0; i < OUTPUTS; i++) x[n * (OUTPUTS + BASIS) + i] = geometry[n * OUTPUTS + i];
    for (int i = 0; i < BASIS; i++) x[n * (OUTPUTS + BASIS) + OUTPUTS + i] = basis[i];
  }
  color_network(color_at, x, y);
  for (int n = 0; n < SHADED; n++) colors[n] = sigmoid(y[n * COLORS].xyz);
}

// Densities at places that are in the cell of the first, and what their colours are made of.
void sample_fields(vec3 positions[TOGETHER], out float densities[TOGETHER], out vec4 geometry[TOGETHER * OUTPUTS]) {
  ivec3 cell = cell_of(place_in_grid(positions[0]));
  vec3 local[TOGETHER];
  for (int n = 0; n < TOGETHER; n++) local[n] = 2.0 * (place_in_grid(positions[n]) - vec3(cell)) - 1.0;
  evaluate(cell, local, geometry);
  for (int n = 0; n < TOGETHER; n++) densities[n] = density_of(geometry[n * OUTPUTS + RAW / 4][RAW % 4]);
}

#if DEFERRED

vec3 color_of(vec4 geometry[OUTPUTS]) {
  vec3 colors[1];
  network_colors(geometry, colors);
  return colors[0];
}

#endif
