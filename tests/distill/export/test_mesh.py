"""Meshes: where the surface of a known field is, what its pictures show, and that files hold it as it is."""

import json
import math
import struct

import numpy as np
import pytest
import torch
from plyfile import PlyData

from distill.export.mesh import DensityVolume, Mesh
from distill.export.mesh_density import surface_density
from distill.export.mesh_files import write_mesh
from distill.export.mesh_picture import mesh_renderer
from distill.model.model import Model
from distill.model.view_renderers import student_renderer
from distill.rendering.far_field import FarField
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import RenderSettings
from scene.rays import SceneBox
from settings.errors import InputError
from settings.far_field import FarFieldConfig
from settings.rendering import OccupancyConfig
from tests.distill.compact.students_at_hand import BOX as OTHER_BOX

BOX, RADIUS, COLOR = SceneBox((-1, -1, -1), (1, 1, 1)), 0.7, (0.25, 0.5, 1.0)
TRIANGLE = Mesh(
    torch.tensor([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]]),
    torch.tensor([[0.0, 0, 1]] * 3),
    torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.5, 1]]),
    torch.tensor([[0, 1, 2]]),
)


@pytest.fixture
def ball(field):
    """A ball of radius 0.7 whose density is 20 at its surface."""
    student = field(lambda x: 20 * torch.exp(40 * (RADIUS - x.norm(dim=-1)).clamp(-0.5, 0.1)), COLOR)
    grid = OccupancyGrid(BOX, 16, 0.02, 0.01, 0.95)
    return Model(student, grid, RenderSettings(0.02, 512, 1e-3, 1 << 18, 0.0, 9.0, "torch"))


def test_a_ball_has_its_surface_outward_faces_and_its_colour(ball):
    volume = DensityVolume(ball, 32)
    mesh = volume.colored(volume.surface(20.0))
    radii = mesh.vertices.norm(dim=-1)
    assert (radii - RADIUS).abs().max() < 0.015
    assert (mesh.normals * mesh.vertices).sum(-1).mean() > 0.98 * RADIUS
    corners = mesh.vertices[mesh.faces]
    inside = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert inside.item() == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)
    assert torch.allclose(mesh.colors, torch.tensor(COLOR).expand_as(mesh.colors), atol=1e-4)


def test_its_picture_has_the_distance_and_the_silhouette_of_a_ball(ball, look_at):
    volume = DensityVolume(ball, 32)
    cameras = look_at([(0.0, 0.0, 3.0), (2.0, -2.0, 1.0)], width=48, height=40, focal=60.0)
    render = mesh_renderer(volume.colored(volume.surface(20.0)))
    for index in range(2):
        rgb, alpha, distance = render(cameras, index)
        assert distance[20, 24].item() == pytest.approx(3 - RADIUS, abs=0.02)
        assert torch.allclose(rgb[20, 24], torch.tensor(COLOR), atol=1e-3)
        seen = 60.0 * math.tan(math.asin(RADIUS / 3))  # pixels
        assert alpha.sum().item() == pytest.approx(math.pi * seen**2, rel=0.03)
        assert alpha[0, 0] == distance[0, 0] == 0


def test_the_density_found_is_near_that_where_rays_end(ball, look_at):
    cameras = look_at([(0.0, 0.0, 3.0), (2.0, -2.0, 1.0)], width=24, height=20)
    found = surface_density(DensityVolume(ball, 32), cameras, student_renderer(ball, torch.device("cpu")))
    assert 2 < found < 64  # where a ray straight on ends it is 20, at the rim 2


def test_a_student_that_is_nowhere_opaque_has_no_surface_and_no_option_is_blamed(ball, field, look_at):
    ball.student = field(lambda x: 0.5 + 0 * x[:, 0], COLOR)
    cameras, render = look_at([(0.0, 0.0, 3.0)], width=8, height=8), student_renderer(ball, torch.device("cpu"))
    with pytest.raises(InputError, match="--mesh: surface: found densities of at most 0.5, expected more than 2, "):
        surface_density(DensityVolume(ball, 16), cameras, render)


def test_a_triangle_is_drawn_in_perspective_from_its_front_alone(look_at):
    cameras = look_at([(0.0, 0.0, 2.0), (0.0, 0.0, -2.0)], width=20, height=20, focal=10.0)
    rgb, alpha, _ = mesh_renderer(TRIANGLE, supersample=8)(cameras, 0)
    assert alpha.sum().item() == pytest.approx(0.5 * 10 * 10, rel=0.02)  # half of 2 x 2 units at 5 pixels each
    assert torch.allclose(rgb[10, 10] / alpha[10, 10], torch.tensor([0.25, 0.5, 0.5]), atol=0.06)
    assert mesh_renderer(TRIANGLE)(cameras, 1).alpha.max() == 0


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_a_mesh_is_drawn_alike_in_a_world_of_any_scale(look_at, scale):
    mesh = TRIANGLE._replace(vertices=TRIANGLE.vertices * scale)
    cameras = look_at([(0.0, 0.0, 2.0 * scale)], width=20, height=20, focal=10.0)
    _, alpha, distance = mesh_renderer(mesh, supersample=8)(cameras, 0)
    assert alpha.sum().item() == pytest.approx(0.5 * 10 * 10, rel=0.02)
    assert distance[10, 10].item() == pytest.approx(2 * scale, rel=0.01)


def test_ply_and_glb_hold_the_mesh(tmp_path):
    assert write_mesh(tmp_path / "x.ply", TRIANGLE) == (tmp_path / "x.ply").stat().st_size
    ply = PlyData.read(tmp_path / "x.ply")
    assert [ply["vertex"][name].tolist() for name in ("x", "y", "blue")] == [[-1, 1, 0], [-1, -1, 1], [0, 0, 255]]
    assert ply["face"]["vertex_indices"][0].tolist() == [0, 1, 2]
    write_mesh(tmp_path / "x.glb", TRIANGLE)
    data = (tmp_path / "x.glb").read_bytes()
    magic, version, length, size, kind = struct.unpack("<4sIIII", data[:20])
    assert (magic, version, length, kind, size % 4) == (b"glTF", 2, len(data), 0x4E4F534A, 0)
    content = json.loads(data[20 : 20 + size])
    assert struct.unpack("<I4s", data[20 + size : 28 + size]) == (content["buffers"][0]["byteLength"], b"BIN\0")
    held, views = data[28 + size :], content["bufferViews"]
    points, colors, faces = (
        np.frombuffer(held, kind, offset=view["byteOffset"], count=view["byteLength"] // np.dtype(kind).itemsize)
        for view, kind in zip(views, ("<f4", "<u2", "<u4"), strict=True)
    )
    assert points.reshape(-1, 3).tolist() == TRIANGLE.vertices.tolist() and faces.tolist() == [0, 1, 2]
    assert colors.tolist()[8:] == [0, round(0.21404 * 65535), 65535, 65535]  # sRGB 0.5 is 0.214 of the light


@pytest.mark.parametrize("up", [(0.0, 0, 1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (0, 0, -1), (0.48, 0.6, -0.64)])
def test_the_node_of_a_glb_turns_what_is_up_onto_y_and_its_vertices_stay(tmp_path, up):
    write_mesh(tmp_path / "x.glb", TRIANGLE, up)
    data = (tmp_path / "x.glb").read_bytes()
    size = struct.unpack("<I", data[12:16])[0]
    (node,) = json.loads(data[20 : 20 + size])["nodes"]
    matrix = np.reshape(node["matrix"], (4, 4)).T
    np.testing.assert_allclose(matrix @ [*up, 1], [0, 1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    points = np.frombuffer(data[28 + size :], "<f4", 9)
    assert points.reshape(3, 3).tolist() == TRIANGLE.vertices.tolist()
    for name, direction in (("up.ply", up), ("plain.ply", (0.0, 1.0, 0.0))):
        write_mesh(tmp_path / name, TRIANGLE, direction)
    assert (tmp_path / "up.ply").read_bytes() == (tmp_path / "plain.ply").read_bytes()


def test_what_has_no_surface_is_refused(ball, field, tmp_path):
    with pytest.raises(InputError, match="--mesh-density: density: found 1e[+]05, expected less than"):
        DensityVolume(ball, 16).surface(1e5)
    with pytest.raises(ValueError, match="found '.obj', expected one of"):
        write_mesh(tmp_path / "x.obj", TRIANGLE)
    far_settings = FarFieldConfig(table_size=64, finest_resolution=32, occupancy_resolution=8)
    ball.far_field = FarField(OTHER_BOX, far_settings, OccupancyConfig())
    with pytest.raises(InputError, match="far field, which has no surface"):
        DensityVolume(ball, 16)
