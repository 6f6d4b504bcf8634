"""Pictures of a city: every ray takes its blocks front to back.

colour = sum over blocks b of (product of the transmittances of the blocks before b) * colour of b, alpha and distance
likewise; what is outside the city's box comes last, then the background.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from distill.city_rendering.block_order import front_to_back
from distill.city_rendering.block_rays import BlockRenderer
from distill.city_rendering.level_of_detail import View
from distill.rendering.far_field import FarField, Segment
from distill.rendering.renderer import RenderedFrame, finished_frame
from kernels.dispatch import resolve
from kernels.threads import one_torch_thread
from scene.cameras import Cameras
from scene.rays import Rays, SceneBox, image_rays, intersect_box
from settings.sections import Color

OpenBlock = Callable[[int, View], BlockRenderer]
"""The renderer of a block, by its index, for a view."""


@dataclass(frozen=True)
class CitySettings:
    """How a city's rays are rendered.

    Args:
        near, far: range along the unit ray, world units.
        termination: a ray ends, and is taken for opaque, when its transmittance falls to this.
        implementation: of the kernels.
        supersample: rays along a side of each pixel, which shows their mean.
    """

    near: float
    far: float
    termination: float
    implementation: str = "auto"
    supersample: int = 1


class CityRenderer:
    """Pictures of disjoint blocks.

    A block is opened only for rays that meet it and are not opaque before it.

    Args:
        boxes: of the blocks.
        box: of the city, which they fill.
        open_block: gives a block's renderer, see ``OpenBlock``.
        far_field: what is outside the city's box.
    """

    def __init__(
        self,
        boxes: Sequence[SceneBox],
        box: SceneBox,
        open_block: OpenBlock,
        settings: CitySettings,
        far_field: FarField | None = None,
    ) -> None:
        self.boxes, self.box, self.settings = tuple(boxes), box, settings
        self._open, self._far_field = open_block, far_field

    @torch.no_grad()
    def render(self, cameras: Cameras, frame: int, background: Color) -> RenderedFrame:
        """One camera's image.

        Raises:
            InputError: the blocks hide each other in a circle.
        """
        scale = self.settings.supersample
        with one_torch_thread():
            return self._render(cameras[frame : frame + 1].finer(scale), 0, background).averaged(scale)

    def _render(self, cameras: Cameras, frame: int, background: Color) -> RenderedFrame:
        settings, view = self.settings, View(cameras, frame)
        ends = settings.near, settings.far
        origins, directions = image_rays(cameras, frame)
        whole = Segment(torch.zeros_like(directions), *directions.new_zeros(2, len(directions)))
        seen = view.seen(self.boxes)
        for place in front_to_back([self.boxes[index] for index in seen], tuple(cameras.centers[frame].tolist())):
            index, block = seen[place], None
            for pixels, width in view.bands(self.boxes[index]):
                own = origins[pixels], directions[pixels]
                near, far = intersect_box(*own, self.boxes[index], *ends)
                far = torch.where(1 - whole.alpha[pixels] > settings.termination, far, near)
                if not bool((far > near).any()):
                    continue
                block = block or self._open(index, view)
                through = block.segment(Rays(*own, near, far), width)
                whole.put(pixels, whole.of_rays(pixels).over(through))
        if self._far_field is not None:
            rays = Rays(origins, directions, *intersect_box(origins, directions, self.box, *ends))
            whole = self._far_field.render_around(whole, rays, *ends, settings.termination)
        size = cameras.height, cameras.width
        implementation = resolve("finishing", settings.implementation, origins.device, ("torch", "numba"))
        return finished_frame(whole, settings.termination, background, size, implementation)


def composite_segments(segments: Sequence[Segment]) -> Segment:
    """Parts of the same rays as one, front to back; differentiable. Of each only colour and transmittance are known."""
    whole = segments[0]
    for segment in segments[1:]:
        whole = whole.over(segment)
    return whole
