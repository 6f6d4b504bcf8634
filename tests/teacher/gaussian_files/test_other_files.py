"""What is given as Gaussians and is something else is named, with the way to a PLY; nothing is unpickled."""

import numpy as np
import pytest
import torch

from settings.errors import InputError
from teacher.gaussian_files import read_gaussians


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def ksplat():
    head = bytearray(4096 + 1024 + 64)
    head[1], head[4], head[16] = 1, 1, 4
    return bytes(head)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ae", "a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>404", "an HTML page.*download failed, or .* viewer.*Export the Gaussians as .ply"),
        (b"glTF\2\0\0\0", "a binary glTF model.*Export the Gaussians as .ply"),
        (b"", "an empty file"),
        (ksplat(), r"a .ksplat .* splat.*splat-transform"),
        (b'{"means": {}, "scales": {}, "quats": {}, "sh0": {}}', "None, expected a number of Gaussians"),
        (bytes(range(200, 250)), "which are no known file's"),
    ],
)
def test_named_for_what_they_are(tmp_path, content, message):
    path = tmp_path / "cloud.ply"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"cloud.ply: .*found .*{message}"):
        read_gaussians(path)


def test_checkpoints_of_other_programs(tmp_path):
    path = tmp_path / "point_cloud.ply"
    for new_format in (True, False):
        torch.save((Trap(), 30000), path, _use_new_zipfile_serialization=new_format)
        with pytest.raises(InputError, match="found a PyTorch checkpoint.*point_cloud/iteration_.*ns-export"):
            read_gaussians(path)
    with open(path, "wb") as file:
        np.savez(file, means3d=np.zeros((3, 3)), objects=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match="an archive of means3d, objects.*ns-export"):
        read_gaussians(path)
