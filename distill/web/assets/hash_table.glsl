uniform sampler2D entries;

const uint PRIME_Y = 2654435761u, PRIME_Z = 805459861u;

vec4 entry(uint texel) { return texelFetch(entries, ivec2(texel % uint(ROW), texel / uint(ROW)), 0); }

// The features of a plane at a place of the unit square, interpolated; of more than four those of a part.
vec4 plane(vec2 unit, float scale, uint first, uint size, uint vertices, bool hashed, int part) {
  vec2 place = unit * scale + 0.5, corner = floor(place), fraction = place - corner;
  uvec2 vertex = uvec2(corner);
  vec4 value = vec4(0.0);
  for (int beyond = 0; beyond < 4; beyond++) {
    uvec2 across = uvec2(beyond & 1, beyond >> 1);
    uint x = vertex.x + across.x, y = (vertex.y + across.y) * (hashed ? PRIME_Y : vertices);
    uint index = hashed ? (x ^ y) & (size - 1u) : x + y;
    if (index >= size) index -= size;  // of a dense level: the vertex after the last
    vec2 share = mix(1.0 - fraction, fraction, vec2(across));
    value += share.x * share.y * entry((first + index) * uint(TEXELS) + uint(part));
  }
  return value;
}

// The features of a level at a place of the unit cube, interpolated; of more than four those of a part.
vec4 level(vec3 unit, float scale, uint first, uint size, uint vertices, bool hashed, int part) {
  vec3 place = unit * scale + 0.5, corner = floor(place), fraction = place - corner;
  uvec3 vertex = uvec3(corner);
  uint by_y = hashed ? PRIME_Y : vertices, by_z = hashed ? PRIME_Z : vertices * vertices;
  vec4 value = vec4(0.0);
  for (int beyond = 0; beyond < 8; beyond++) {
    uvec3 across = uvec3(beyond & 1, beyond >> 1 & 1, beyond >> 2);
    uint x = vertex.x + across.x, y = (vertex.y + across.y) * by_y, z = (vertex.z + across.z) * by_z;
    uint index = hashed ? (x ^ y ^ z) & (size - 1u) : x + y + z;
    if (index >= size) index -= size;  // of a dense level: the vertex after the last
    vec3 share = mix(1.0 - fraction, fraction, vec3(across));
    value += share.x * share.y * share.z * entry((first + index) * uint(TEXELS) + uint(part));
  }
  return value;
}
