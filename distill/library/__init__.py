"""For scripts: load a student or Gaussians and render a camera, in a line each."""
