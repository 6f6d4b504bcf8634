"""Frames whose pictures are not on disk, as after a download that is not complete or where some were deleted since."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import Tensor

from scene.formats import load_frames
from scene.formats.dataset_format import note_once
from scene.frames import Frames, chosen_frames
from settings.data import DataConfig
from settings.errors import InputError
from settings.words import counted

WITHOUT_TRUTH = "data.ground_truth: false takes all frames, and measures against the teacher alone"
"""What ``frames_with_pictures`` says of pictures that are ground truth alone."""
_NAMED = 3  # of the frames that are left out
_PUT_BACK = (
    "Put them back, or correct file_path; of a COLMAP or graphdeco model, data.images names the folder of its pictures."
)


def images_among_missing(path: Path, frames: str | None, data: DataConfig) -> list[Path]:
    """The images of a dataset's frames that are on disk where others are not, so that they say which frames a run is
    of; else none.

    Args:
        frames: ``"START:STOP:STEP"`` of those that the run chooses from: what others have changes nothing.
    """
    if not data.ground_truth:
        return []
    with suppress(InputError):  # whoever needs the dataset says so
        images = chosen_frames(frames, load_frames(path, data=data)).image_paths
        return [] if all(images) else [image for image in images if image is not None]
    return []


def frames_with_pictures(dataset: Frames, held: Tensor, otherwise: str = "") -> list[int]:
    """Indices of the frames whose pictures are on disk; that others are left out is said, once a process.

    Args:
        held: (N,) bool, the frames that are held out, as they are told before any is left out: a picture that comes or
            goes then changes no other frame's part.
        otherwise: what does without the pictures, in words.

    Raises:
        InputError: no frame has a picture, or none of those that are held out, or none of the others.
    """
    is_there = [path is not None for path in dataset.image_paths]
    kept, count = [index for index, there in enumerate(is_there) if there], len(dataset)
    if len(kept) == count:
        return kept
    sought = f"; the dataset's first one was looked for at {dataset.sought}" if dataset.sought else ""
    hint = _PUT_BACK + (f" Or do without: {otherwise}." if otherwise else "")
    parts = {"{}": range(count), "{} held out": held.nonzero()[:, 0].tolist()}
    parts["{} to train on"] = (~held).nonzero()[:, 0].tolist()
    for what, part in parts.items():
        if len(part) and not any(is_there[index] for index in part):
            found = f"no file for any of the {what.format(counted(len(part), 'frame'))}{sought}"
            raise InputError(dataset.source, "images", found, "those of some at least", hint)
    missing = [index for index in range(count) if not is_there[index]]
    names = ", ".join(dataset.names[index] for index in missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    of_held = f" ({int(held[missing].sum())} of the {int(held.sum())} that are held out)" if held.any() else ""
    note_once(
        "warning",
        f"{dataset.source}: {len(missing)} of {count} frames have no image on disk and are left out{of_held}: "
        f"{names}{more}{sought}.",
    )
    if otherwise:
        note_once("info", f"{dataset.source}: {otherwise}.")
    return kept
