// A multiresolution hash grid with two bias-free networks: kernels/encoding/hash_encoding.py, kernels/networks/radiance_mlp.py.

// Density at a place, and what its colour is made of: the density network's output, raw density first.
float sample_field(vec3 position, out vec4 geometry[OUTPUTS]) {
  vec3 sides = UPPER - LOWER;
  vec4 encoding[ENCODING], x[ENCODING + HARMONICS];
  encode(clamp((position - LOWER) / max(sides.x, max(sides.y, sides.z)), 0.0, 1.0), encoding);
  for (int i = 0; i < ENCODING; i++) x[i] = encoding[i];
  for (int i = 0; i < HARMONICS; i++) x[ENCODING + i] = basis[i];
  density_network(x, geometry);
  return density_of(geometry[0].x);
}

vec3 color_of(vec4 geometry[OUTPUTS]) {
  vec4 x[OUTPUTS + BASIS], y[COLORS];
  for (int i = 0; i < OUTPUTS; i++) x[i] = geometry[i];
  for (int i = 0; i < BASIS; i++) x[OUTPUTS + i] = basis[i];
  color_network(x, y);
  return sigmoid(y[0].xyz);
}
