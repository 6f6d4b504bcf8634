"""``city.json``: the blocks of a city, what each is made of, and how far it is.

Paths in it are relative to its folder, so that the folder may move, to another machine too. One process writes it, by
whole files: whoever reads it at any moment has a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, Field, PrivateAttr

from machine.files import write_atomically
from machine.run_folder import CITY_MANIFEST
from scene.formats.json_text import read_json
from scene.rays import SceneBox
from settings.data import BoxConfig
from settings.errors import InputError
from settings.loading import validate
from settings.sections import FolderName, FromList, Section, Vector
from settings.words import show

FORMAT, VERSION = "city", 1
Status = Literal["waiting", "running", "done", "failed"]
Count = Annotated[int, Field(ge=0)]
Model = TypeVar("Model", bound=BaseModel)
_MADE = f"tools/distill_city.py makes one: results/<scene>/<run>/{CITY_MANIFEST}."
_HINT = "Make the city again: tools/distill_city.py without --resume."


class StudentFile(Section):
    """A student of a block: a checkpoint or a compact file."""

    file: str = Field(description="relative to the manifest's folder")
    cell_size: float = Field(gt=0, description="edge of its finest cells, world units")
    bytes: Count = Field(description="of the file")


class Block(Section):
    """A box of the city with the run that learns it."""

    name: FolderName = Field(description="`b000`, `b001`, ...: of its folder, and in tables")
    lower: Vector = Field(description="smallest corner x, y, z, world units")
    upper: Vector = Field(description="largest corner x, y, z, world units")
    gaussians: Count = Field(description="Gaussians that reach into it; those across a face count in both blocks")
    train_cameras: Count = Field(description="cameras that see it and are trained from")
    holdout_cameras: Count = Field(description="cameras that see it and are kept for measuring")
    budget_mib: Annotated[float, Field(gt=0)] | None = Field(description="its share of the bytes; null: no limit")
    config: str = Field(description="config of its run")
    run: str = Field(description="folder of its run, as given to --output")
    students: Annotated[tuple[StudentFile, ...], FromList] = Field(description="finest first; none: not trained yet")
    status: Status = Field(description="how far its run is")

    @property
    def box(self) -> SceneBox:
        """What is drawn by it, world units."""
        return SceneBox(self.lower, self.upper)


class GaussiansFile(Section):
    """The city's teacher."""

    file: str = Field(description="relative to the manifest's folder")
    count: Annotated[int, Field(ge=1)]


class FarField(Section):
    """The run that learnt what is outside the city's box; it is composited last."""

    run: str = Field(description="folder of its run")
    student: str | None = Field(description="its student's file; null: not trained yet")


class Manifest(Section):
    """A city: disjoint boxes that fill its own, neighbours' faces at equal numbers.

    ``with_block`` and ``write`` record how far a block is.
    """

    format: Literal["city"]
    version: Literal[1]
    name: str
    config: str = Field(description="the city's own config, as resolved")
    box: BoxConfig
    gaussians: GaussiansFile
    far_field: FarField | None
    blocks: Annotated[tuple[Block, ...], FromList, Field(min_length=1)]

    _folder: Path = PrivateAttr(Path())

    @property
    def folder(self) -> Path:
        """What its paths are relative to: where it was read from or written to."""
        return self._folder

    @property
    def scene_box(self) -> SceneBox:
        """The box of the whole city."""
        return SceneBox(self.box.lower, self.box.upper)

    def path(self, relative: str) -> Path:
        """A path of the manifest's as it can be opened."""
        return self._folder / relative

    def block(self, name: str) -> Block:
        """The block of that name; ``KeyError`` where there is none."""
        return {block.name: block for block in self.blocks}[name]

    def with_block(self, name: str, **values: Any) -> Manifest:
        """The manifest with other values of one block, e.g. ``status="done"``."""
        blocks = tuple(block.model_copy(update=values) if block.name == name else block for block in self.blocks)
        return self.model_copy(update={"blocks": blocks})


def write_manifest(folder: str | Path, manifest: Manifest) -> Manifest:
    """Writes ``city.json`` into a folder, atomically; returns the manifest as one of that folder."""
    write_atomically(Path(folder) / CITY_MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    written = manifest.model_copy()
    written._folder = Path(folder)
    return written


def read_manifest(path: str | Path) -> Manifest:
    """Reads and checks a city's manifest.

    Args:
        path: the file, or its folder.

    Raises:
        InputError: no such file; no JSON; a field is missing, unknown, or of another type or range than said above; the
            blocks overlap, leave gaps, or share a name.
    """
    path = Path(path)
    path = path / CITY_MANIFEST if path.is_dir() else path
    try:
        content = read_json(path, f"a city's {CITY_MANIFEST}")
    except InputError as error:
        hint = f"{error.hint} {_MADE}".lstrip()
        raise InputError(error.source, error.field, error.found, error.expected, hint) from error
    found = content.get("format") if isinstance(content, dict) else content
    if found != FORMAT:
        raise InputError(path, "format", show(found), FORMAT, f"This is not the manifest of a city. {_MADE}")
    if content.get("version") != VERSION:
        raise InputError(path, "version", show(content.get("version")), VERSION, _HINT)
    blocks = [
        _section(Block, path, f"blocks[{index}]", block, students=StudentFile)
        for index, block in enumerate(_items(path, "blocks", content.get("blocks")))
    ]
    manifest = _section(Manifest, path, "", {**content, "blocks": blocks})
    manifest._folder = path.parent
    check_blocks(path, manifest.scene_box, blocks)
    return manifest


def check_blocks(source: str | Path, box: SceneBox, blocks: Sequence[Block]) -> None:
    """Checks that boxes fill a box, each point once, their faces at equal numbers.

    Args:
        source: where they are from, for messages.

    Raises:
        InputError: two blocks overlap or share a name, one reaches out of the box, or there is a gap.
    """
    names = [block.name for block in blocks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(source, "blocks", f"two named {twice}", "each name once", _HINT)
    lower, upper = (np.array([getattr(block, side) for block in blocks]) for side in ("lower", "upper"))
    for index, block in enumerate(blocks):
        if (lower[index] >= upper[index]).any():
            expected = f"more than lower {list(block.lower)} on every axis"
            raise InputError(source, f"blocks[{index}].upper", list(block.upper), expected, _HINT)
        if (lower[index] < box.lower).any() or (upper[index] > box.upper).any():
            found = f"{list(block.lower)} to {list(block.upper)}"
            expected = f"a box within the city's, {list(box.lower)} to {list(box.upper)}"
            raise InputError(source, f"blocks[{index}]", found, expected, _HINT)
        meets = ((lower < upper[index]) & (upper > lower[index])).all(axis=1)
        meets[index] = False
        if meets.any():
            found = f"{block.name} and {names[meets.argmax()]}, which overlap"
            raise InputError(source, "blocks", found, "disjoint boxes", _HINT)
    for axis in range(3):
        # A face between two blocks is the upper end of one and the lower end of the other.
        inner = {*upper[:, axis].tolist(), box.lower[axis]} ^ {*lower[:, axis].tolist(), box.upper[axis]}
        if inner:
            found = f"a face at {'xyz'[axis]} = {min(inner)!r} with nothing on its other side"
            raise InputError(source, "blocks", found, "boxes that fill the city's", _HINT)
    filled = np.prod(upper - lower, axis=1).sum() / np.prod(box.extent)
    if abs(filled - 1) > 1e-9:
        raise InputError(source, "blocks", f"boxes of {filled:.6%} of the city's", "boxes that fill it", _HINT)


def _items(path: Path, field: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(path, field, "nothing" if value is None else show(value), "a list", _HINT)
    return value


def _section(model: type[Model], path: Path, field: str, value: object, **inner: type[BaseModel]) -> Model:
    """A part of the file as ``model``; an error names the whole field.

    Args:
        inner: the parts of its lists, by their key.
    """
    if not isinstance(value, dict):
        raise InputError(path, field, show(value), "a section with keys " + ", ".join(model.model_fields), _HINT)
    lists = {
        key: [
            _section(part, path, f"{field}.{key}[{index}]", item)
            for index, item in enumerate(_items(path, f"{field}.{key}", value.get(key)))
        ]
        for key, part in inner.items()
    }
    try:
        return validate(model, {**value, **lists}, {}, str(path))
    except InputError as error:
        whole = f"{field}.{error.field}" if field else error.field
        raise InputError(path, whole, error.found, error.expected, error.hint) from None
