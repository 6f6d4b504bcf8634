"""Students for other programs: ONNX of the field, meshes of its surface."""
