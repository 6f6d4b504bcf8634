precision highp float;
precision highp int;
precision highp sampler2D;
precision highp usampler3D;

const float PI = 3.141592653589793;

// Real spherical harmonics of a unit direction, in the order of kernels/encoding/spherical_harmonics.py, four to a vector, of the pixel's ray.
vec4 basis[BASIS];

void fill_basis(vec3 d) {
  float x = d.x, y = d.y, z = d.z, xx = x * x, yy = y * y, zz = z * z;
  basis[0] = vec4(sqrt(0.25 / PI), 0.0, 0.0, 0.0);
#if DEGREE >= 1
  float c1 = sqrt(0.75 / PI);
  basis[0].yzw = c1 * vec3(-y, z, -x);
#endif
#if DEGREE >= 2
  float c2 = sqrt(3.75 / PI);
  basis[1] = vec4(c2 * x * y, -c2 * y * z, sqrt(0.3125 / PI) * (3.0 * zz - 1.0), -c2 * x * z);
  basis[2] = vec4(0.5 * c2 * (xx - yy), 0.0, 0.0, 0.0);
#endif
#if DEGREE >= 3
  float outer = sqrt(1.09375 / PI), middle = sqrt(26.25 / PI), inner = sqrt(0.65625 / PI);
  basis[2].yzw = vec3(-outer * y * (3.0 * xx - yy), middle * x * y * z, -inner * y * (5.0 * zz - 1.0));
  basis[3] = vec4(sqrt(0.4375 / PI) * z * (5.0 * zz - 3.0), -inner * x * (5.0 * zz - 1.0),
                  0.5 * middle * z * (xx - yy), -outer * x * (xx - 3.0 * yy));
#endif
#if DEGREE >= 4
  float m4 = sqrt(19.6875 / PI), m3 = sqrt(9.84375 / PI), m2 = sqrt(2.8125 / PI), m1 = sqrt(1.40625 / PI);
  basis[4] = vec4(m4 * x * y * (xx - yy), -m3 * y * z * (3.0 * xx - yy), m2 * x * y * (7.0 * zz - 1.0),
                  -m1 * y * z * (7.0 * zz - 3.0));
  basis[5] = vec4(sqrt(0.03515625 / PI) * (zz * (35.0 * zz - 30.0) + 3.0), -m1 * x * z * (7.0 * zz - 3.0),
                  0.5 * m2 * (xx - yy) * (7.0 * zz - 1.0), -m3 * x * z * (xx - 3.0 * yy));
  basis[6] = vec4(0.25 * m4 * (xx * (xx - 3.0 * yy) - yy * (3.0 * xx - yy)), 0.0, 0.0, 0.0);
#endif
}

vec3 sigmoid(vec3 x) { return 1.0 / (1.0 + exp(-x)); }

float density_of(float raw) { return exp(min(raw, 15.0)); }

vec4 relu(vec4 x) { return max(x, 0.0); }
