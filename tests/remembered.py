"""Views that are rendered once: what many tests look at through the same cameras."""

from __future__ import annotations

from distill.model.view_renderers import Rendering, RenderView
from scene.cameras import Cameras


def remembered(render: RenderView, views: dict | None = None) -> RenderView:
    """Renders a view the first time that it is asked for; from then on the very same tensors come back.

    Args:
        views: what has been rendered already, shared by renderers of one and the same scene; None: nothing.
    """
    views = {} if views is None else views

    def look_up(cameras: Cameras, index: int) -> Rendering:
        intrinsics = (getattr(cameras, name)[index].item() for name in ("fx", "fy", "cx", "cy"))
        # The sum makes -0.0 a plain 0.
        key = (*(cameras.c2w[index] + 0.0).flatten().tolist(), *intrinsics, cameras.width, cameras.height)
        if key not in views:
            views[key] = render(cameras, index)
        return views[key]

    return look_up
