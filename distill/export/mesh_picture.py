"""Pictures of a mesh by a z-buffer: what a viewer that draws unlit vertex colours would show."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.export.mesh import Mesh
from distill.model.view_renderers import Rendering, RenderView
from scene.cameras import Cameras, area_means
from scene.rays import distance_per_z, project

_NEAR = 1e-3  # along the axis, of the mesh's longest side; a triangle that reaches nearer is left out
_FRAGMENTS = 1 << 21  # pixels of triangles' bounding boxes at a time


def mesh_renderer(mesh: Mesh, supersample: int = 2) -> RenderView:
    """Renders a mesh from outside of it: triangles seen from behind are left out.

    Args:
        supersample: a picture is drawn at this multiple of its size and averaged by area.
    """

    def render(cameras: Cameras, index: int) -> Rendering:
        planes = area_means(_drawn(mesh, cameras[index].to("cpu").finer(supersample)), supersample)
        rgb, alpha, distance = planes[..., :3], planes[..., 3], planes[..., 4]
        return Rendering(rgb, alpha, torch.where(alpha > 0, distance / alpha.clamp(min=1e-6), 0.0))

    return render


def _drawn(mesh: Mesh, camera: Cameras) -> Tensor:
    """(H, W, 5) rgb, 1 and distance of the nearest triangle at each pixel's centre, 0 where there is none."""
    width, height = camera.width, camera.height
    row, col, depth, _ = project(camera, 0, mesh.vertices)
    corners = torch.stack([col, row], dim=-1)[mesh.faces]  # (F, 3, 2)
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # Rows go down: what is anticlockwise in the world is clockwise, of negative area, here.
    near = _NEAR * (mesh.vertices.amax(0) - mesh.vertices.amin(0)).max()
    seen = (area < 0) & (depth[mesh.faces] > near).all(-1)
    limits = torch.tensor([width, height]) - 1
    first = (corners.amin(1) - 0.5).ceil().clamp(min=0)
    size = ((corners.amax(1) - 0.5).floor().minimum(limits) - first + 1).clamp(min=0)
    seen &= size.prod(-1) > 0
    corners, area, first, size = corners[seen], area[seen], first[seen].long(), size[seen].long()
    faces = mesh.faces[seen]
    nearest, planes = torch.zeros(height * width), torch.zeros(height * width, 5)  # 1 / depth
    ends = size.prod(-1).cumsum(0)
    for part in _parts(ends):
        count = size[part].prod(-1)
        face = torch.arange(part.start, part.stop).repeat_interleave(count)
        place = torch.arange(len(face)) - (count.cumsum(0) - count).repeat_interleave(count)
        pixel = torch.stack([place % size[face, 0], place // size[face, 0]], dim=-1) + first[face]
        weights = _weights(corners[face], area[face], pixel + 0.5)
        inside = (weights >= 0).all(-1)
        face, pixel, weights = face[inside], pixel[inside], weights[inside]
        over_depth = weights / depth[faces[face]]  # linear in the picture, as 1 / depth is
        closeness, number = over_depth.sum(-1), pixel[:, 1] * width + pixel[:, 0]
        best = nearest.scatter_reduce(0, number, closeness, "amax")
        won = (closeness == best[number]) & (closeness > nearest[number])
        shares = (over_depth / closeness[:, None])[won]
        planes[number[won], :3] = (shares[..., None] * mesh.colors[faces[face[won]]]).sum(1)
        nearest = best
    hit = nearest > 0
    planes[hit, 3] = 1
    planes[hit, 4] = distance_per_z(camera, 0).flatten()[hit] / nearest[hit]
    return planes.view(height, width, 5)


def _parts(ends: Tensor) -> list[slice]:
    """Triangles in groups of about ``_FRAGMENTS`` pixels; ``ends``: pixels up to each of them."""
    if not len(ends):
        return []
    marks = torch.arange(_FRAGMENTS, int(ends[-1]) + _FRAGMENTS, _FRAGMENTS)
    borders = [0, *torch.searchsorted(ends, marks, right=True).tolist()]
    borders[-1] = len(ends)
    return [slice(start, stop) for start, stop in zip(borders, borders[1:], strict=False) if start < stop]


def _weights(corners: Tensor, area: Tensor, points: Tensor) -> Tensor:
    """(N, 3) barycentric coordinates of points (N, 2) in triangles (N, 3, 2)."""
    towards = corners - points[:, None]
    parts = [_cross(towards[:, (corner + 1) % 3], towards[:, (corner + 2) % 3]) for corner in range(3)]
    return torch.stack(parts, dim=-1) / area[:, None]


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
