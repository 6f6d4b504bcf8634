"""The sizes of a dataset's pictures: what they are, what it says they are, and the one size that holds all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scene.formats.dataset_format import note_once
from scene.frames import Size
from scene.images import ImageHeader, image_header
from settings.errors import InputError

_NO_SIZE = "Add w and h; where only poses are wanted of it, --resolution or --width says how large pictures are."


def picture_sizes(
    source: Path,
    stated: Sequence[Size | None],
    paths: Sequence[Path | None],
    otherwise: Size | None = None,
    sought: str = "",
    as_stored: bool = False,
) -> tuple[Size, ...]:
    """(width, height) of each frame: that of its image, else what the dataset states, else the most common.

    What is stated of a frame without an image is scaled as most images stated alike are, so that a frame's camera is
    the same whether its image is there or not.

    Images of the stated shape but of another size, and those with an EXIF orientation, are said.

    Args:
        stated: (width, height) of each frame by the dataset; None where it says nothing.
        paths: the image of each frame; None where there is none.
        otherwise: of frames of which nothing is known, where nothing is known of any.
        sought: the first image that is not on disk, in words.
        as_stored: see ``Frames``; else images are of the size that an EXIF orientation turns them to.

    Raises:
        InputError: a frame is stated in another shape than its image has; an image is damaged; nothing says the size.
    """
    headers = [None if path is None else image_header(path) for path in paths]
    own_sizes = [header and (header.stored_size if as_stored else header.size) for header in headers]
    pairs = Counter((other, own) for own, other in zip(own_sizes, stated, strict=True) if own and other).most_common()
    known = [own or other and _as_others(other, pairs) for own, other in zip(own_sizes, stated, strict=True)]
    common = Counter(size for size in known if size).most_common(1)
    fallback = common[0][0] if common else otherwise
    if fallback is None:
        found = "neither w and h nor an image on disk" + (f" (the first looked for: {sought})" if sought else "")
        raise InputError(source, "image size", found, "one of them", _NO_SIZE)
    sizes = tuple(size or fallback for size in known)
    scaled = [index for index, other in enumerate(stated) if other and own_sizes[index] and other != sizes[index]]
    for index in scaled:
        if not _same_shape(stated[index], sizes[index]):
            _refuse_shape(source, index, stated[index], sizes[index], headers[index], as_stored)
    if scaled:
        width, height = stated[scaled[0]]
        own = Counter(sizes[index] for index in scaled).most_common()
        shown = ", ".join(f"{size[0]}x{size[1]}" + (f" ({count})" if len(own) > 1 else "") for size, count in own[:4])
        by = f" by {own[0][0][0] / width:.6g}" if len(own) == 1 else ""
        note_once(
            "warning",
            f"{source}: w, h are {width}x{height} in {len(scaled)} of {len(stated)} frames, the images are {shown}: "
            f"fl_x, fl_y, cx, cy are scaled{by} to the images.",
        )
    turned = [(header, path) for header, path in zip(headers, paths, strict=True) if header and header.orientation != 1]
    if turned:
        tags = f"{source}: {len(turned)} of {len(paths)} images have an EXIF orientation"
        tags += f" ({turned[0][0].orientation} in {turned[0][1].name})"
        if as_stored:
            note_once("info", f"{tags}: they are taken as stored, since that is how their poses were found.")
        else:
            words = "they are turned upright as it says. Poses made from the pixels as stored need images without it."
            note_once("warning", f"{tags}: {words}")
    return sizes


def canvas(source: Path, sizes: Sequence[Size]) -> tuple[Size, tuple[Size, ...] | None]:
    """The (width, height) that holds every picture, and the sizes where they differ, which is said; else None."""
    counts = Counter(sizes)
    whole = max(width for width, _ in sizes), max(height for _, height in sizes)
    if len(counts) == 1:
        return whole, None
    listed = ", ".join(f"{width}x{height} ({count})" for (width, height), count in counts.most_common(4))
    more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
    note_once(
        "info",
        f"{source}: pictures of {len(counts)} sizes, {listed}{more}: each lies in the top left corner of "
        f"{whole[0]}x{whole[1]} pixels; what is beyond its own is neither trained on nor measured.",
    )
    return whole, tuple(sizes)


def _as_others(stated: Size, pairs: Sequence[tuple[tuple[Size, Size], int]]) -> Size:
    """The size of a picture that is not there, by those of which the same is stated, else by the factor of most.

    Args:
        pairs: what is stated of pictures that are there, and what they have, the commonest first.
    """
    if not pairs:
        return stated
    ((width, height), own), _ = pairs[0]
    scaled = round(stated[0] * own[0] / width), round(stated[1] * own[1] / height)
    return next((size for (other, size), _ in pairs if other == stated), scaled)


def _refuse_shape(
    source: Path, index: int, stated: Size, size: Size, header: ImageHeader | None, as_stored: bool
) -> None:
    found = f"w, h of frames[{index}] {stated[0]}x{stated[1]}, the image {size[0]}x{size[1]}"
    hint = "Take the cameras that belong to these images."
    if stated[::-1] == size or _same_shape(stated[::-1], size):
        found += ": the sides are swapped"
        hint = "Turn the images, or swap w with h, fl_x with fl_y and cx with cy: whichever fits the poses."
        if header and header.size != header.stored_size:
            found += f" by the EXIF orientation {header.orientation} (tag 274)"
            hint = (
                "If the poses were made from the stored pixels, remove the tag from the images; else correct w and h."
            )
            if as_stored:
                hint = "The poses are of images turned upright: turn copies of them (`mogrify -auto-orient`)."
    raise InputError(source, "image size", found, "images of the shape that w, h say", hint)


def _same_shape(stated: Size, size: Size) -> bool:
    """Whether one is the other scaled, up to the rounding of a pixel."""
    both_differ = stated[0] != size[0] and stated[1] != size[1]
    return both_differ and abs(stated[1] * size[0] / stated[0] - size[1]) <= max(1.0, size[0] / stated[0])
