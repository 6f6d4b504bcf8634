"""The settings of what is distilled."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from settings.sections import AssetPath, Background, Color, FromList, Section, Unit, Vector, background_rgb, problem

BUILT_IN = ("bricks", "room", "city")
"""The kinds of teachers that need nothing on disk."""


def _listed(value: object) -> object:
    """One value for a list of one, and YAML's own infinity and NaN as the words."""
    if value is None:
        return None
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_in_words(item) for item in items)


def _in_words(item: object) -> object:
    if isinstance(item, float) and math.isnan(item):
        return "nan"
    if isinstance(item, float) and math.isinf(item):
        return "inf"
    return "inf" if item == "-inf" else item


def _not_zero(values: tuple[float | str, ...] | None) -> tuple[float | str, ...] | None:
    if values and 0 in values:
        raise problem("", 0, "other values", "0 means nothing is there anyway: leave it out.")
    return values


EmptyDepth = Annotated[
    tuple[Literal["inf", "nan", "negative"] | float, ...] | None,
    BeforeValidator(_listed),
    AfterValidator(_not_zero),
    WithJsonSchema({"words": "`inf`, `nan`, `negative`, a number other than 0, a list of these, or null"}),
]


NEAR = 0.2
"""The near plane of graphdeco's program, world units."""

Elevation = Annotated[float, Field(ge=-85, le=85)]
Lots = Annotated[int, Field(ge=1, le=1000)]


class LiveConfig(Section):
    """A teacher that renders new views all through its student's training."""

    buffer: int = Field(
        128, ge=2, description="views that rays are drawn from at a time; a new one replaces the oldest"
    )
    reuse: float = Field(
        1.0, gt=0, description="rays drawn between one new view and the next, as a multiple of the pixels of a view"
    )
    ahead: int = Field(4, ge=1, description="views rendered ahead of their turn, on the CPU in a thread of its own")
    own_share: Unit = Field(
        0.1,
        description="share of the views that are rendered from a training pose, unchanged; the others lie between "
        "training poses",
    )
    angle: float = Field(
        3.0,
        ge=0,
        le=90,
        description="jitter of the other views' direction, degrees",
    )
    distance: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="jitter of the other views' distance, as a fraction of it; if the cameras have no common focus, "
        "of their position, as a fraction of the distance to the next pose",
    )


class OrbitConfig(Section):
    """Cameras found from the Gaussians, where a dataset has none."""

    up: Literal["auto"] | Vector = Field(
        "auto",
        description="direction that is up, x, y, z, also for tools that turn cameras about a scene; auto: what is up"
        " in the dataset's pictures, or the axis of the world along which the Gaussians lie low",
    )
    inside: bool | Literal["auto"] = Field(
        "auto",
        description="look around from inside, as in a room; auto: if the middle is free and enclosed on all sides",
    )
    distance: float | None = Field(
        None,
        gt=0,
        description="distance of the cameras from the middle where nothing is in the way, world units; null: so far "
        "that their pictures hold the middle of the scene; no effect inside",
    )
    elevation: Annotated[tuple[Elevation, Elevation], FromList] = Field(
        (0.0, 72.0),
        description="lowest and highest camera above the level of the middle, as angles in degrees; no effect inside",
    )

    @model_validator(mode="after")
    def _possible(self) -> OrbitConfig:
        low, high = self.elevation
        if low >= high:
            raise problem("elevation", [low, high], "the lower one first")
        if self.up != "auto" and not any(self.up):
            raise problem("up", list(self.up), "a direction, e.g. [0, 0, 1]")
        return self

    @property
    def known_up(self) -> Vector | None:
        """``up`` as a unit vector; None: it is to be found."""
        return None if self.up == "auto" else tuple(value / math.hypot(*self.up) for value in self.up)


class CityConfig(Section):
    """The built-in city: lots of 48 m by 48 m, each with half of the streets about it."""

    lots: Annotated[tuple[Lots, Lots], FromList] = Field(
        (2, 2), description="columns and rows of lots; a larger city holds the smaller one of the same seed"
    )
    spacing: float = Field(
        1.5, ge=0.25, le=6, description="between neighbouring Gaussians, metres; at 1.5 a lot has about 3,000"
    )


class TeacherConfig(Section):
    """What is distilled."""

    kind: Literal["views", "images", "gaussians", "bricks", "room", "city"] = Field(
        description="what the student learns from (docs/teacher.md). views: renders and depth on disk; images: the "
        "dataset's own images, the control; gaussians: a file of Gaussians, rendered here; bricks: the built-in scene;"
        " room: that scene in a room, written as a capture with pictures (kept in the cache) and read back; city: a "
        "built-in city of Gaussians, of any extent"
    )
    outputs: AssetPath | None = Field(
        None,
        description="graphdeco's output folder (`renders/`, `depth/`), under the assets root. views: the teacher; "
        "gaussians rendered live: what the student is measured against, null: renders made here",
    )
    ply: AssetPath | None = Field(
        None,
        description="3D Gaussians (.ply, .npz, .spz, .splat or .sog), under the assets root. gaussians: the teacher;"
        " views: which cells are occupied at first",
    )
    scale: float = Field(
        1.0,
        gt=0,
        le=1e6,
        description="factor by which the Gaussians of `ply` are enlarged about the origin; 100 for those trained on "
        "MatrixCity's `pose/` files",
    )
    near: float | None = Field(
        None,
        gt=0,
        description="Gaussians of `ply`, or of a teacher's fit, closer than this along the view axis are not drawn, "
        "world units; null: 0.2, as graphdeco's program does, those of `ply` times `scale`",
    )
    rasterizer: Literal["auto", "cpu", "gsplat"] = Field(
        "auto",
        description="what renders the Gaussians; gsplat: CUDA, an optional package compiled on first use; auto: gsplat "
        "on a CUDA device on which it runs, else cpu",
    )
    background: Background = Field(
        "white", description="colour that the teacher's RGB renders are composited on; R, G, B in [0, 1]"
    )
    depth_kind: Literal[
        "auto", "none", "z", "distance", "inverse_z", "z_normalized", "distance_normalized", "inverse_z_normalized"
    ] = Field(
        "auto",
        description="what the depth files hold (normalized: divided by accumulated alpha); none: ignore them",
    )
    depth_empty: EmptyDepth = Field(
        None,
        description="values of the depth files that mark empty pixels, besides 0: `inf`, `nan`, `negative`, a number"
        " (it and all beyond it), or a list of these; null: 0 alone, and files that seem to have another mark are "
        "refused",
    )
    live: bool | LiveConfig = Field(
        False,
        description="render new views all through training instead of fixed ones before it; for gaussians, bricks, "
        "room, city",
    )
    frames: int = Field(
        64, ge=2, description="number of views; for bricks, room, city, and for gaussians without data.transforms"
    )
    orbit: OrbitConfig = Field(
        OrbitConfig(), description="where these views are; for gaussians without data.transforms"
    )
    city: CityConfig = Field(CityConfig(), description="of teacher.kind city")
    fitted_width: int | None = Field(
        None,
        ge=1,
        le=16384,
        description="width in pixels of the pictures that the Gaussians were fitted to. Views are drawn at least "
        "that wide and averaged, with the 0.3 px^2 by which 3DGS widens every Gaussian in pixels of that width "
        "(docs/teacher.md); null: read from the files, else found by what looks most like the dataset's images",
    )
    supersample: int | None = Field(
        None,
        ge=1,
        le=4,
        description="for gaussians, bricks: render at this multiple of the width, then average; null: the least that"
        " reaches fitted_width",
    )

    clip: bool = Field(
        False,
        description="for gaussians: draw only what lies in data.box, of each Gaussian its share along a pixel's ray,"
        " by the CPU's rasteriser; used for blocks of a larger scene (docs/scaling.md)",
    )

    @property
    def near_plane(self) -> float:
        """World units."""
        return NEAR * self.scale if self.near is None else self.near

    @property
    def background_rgb(self) -> Color:
        """sRGB in [0, 1]."""
        return background_rgb(self.background)
