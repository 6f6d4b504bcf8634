// Of a network layer after layer: its biases, then its matrix, four outputs to a texel.
uniform sampler2D networks;

vec4 texel(int index) { return texelFetch(networks, ivec2(index % ROW, index / ROW), 0); }

vec4 leaky_relu(vec4 x) { return max(x, LEAK * x); }
