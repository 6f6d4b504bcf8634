"""Pictures decoded when they are asked for: the same pixels, within a budget."""

import json
import threading

import numpy as np
import pytest
import torch

from scene.formats.transforms_json import write_transforms
from scene.images import write_image
from settings.data import DataConfig
from settings.errors import InputError
from teacher.fitting.picture_levels import Pictures
from teacher.views.joined_views import join_views
from teacher.views.lazy_pictures import Picture, PictureStore, straight_rgba
from teacher.views.rasterized import View
from teacher.views.teacher_views import views_from_images
from tests.toy_scene import ring_of_cameras

WHITE = (1.0, 1.0, 1.0)
PLANES = ("rgb", "alpha", "coverage", "ground_truth", "counted")


def write_dataset(folder, channels=3, frames=6, masked=False, size=12):
    cameras, rng = ring_of_cameras(frames, size, size), np.random.default_rng(0)
    write_transforms(folder / "transforms.json", cameras, [f"r_{index}" for index in range(frames)])
    for index in range(frames):
        write_image(folder / f"r_{index}.png", rng.integers(0, 255, (size, size, channels), dtype=np.uint8))
    if masked:
        write_image(folder / "m.png", np.repeat([[0], [255]], size // 2, axis=0).repeat(size, 1).astype(np.uint8))
        content = json.loads((folder / "transforms.json").read_text())
        content["frames"][1]["mask_path"] = "m.png"
        (folder / "transforms.json").write_text(json.dumps(content))
    return folder / "transforms.json"


def views_of(path, gib=None, every=3):
    data = DataConfig(memory_gib=gib)
    return views_from_images(path, width=6, background=WHITE, holdout_every=every, data=data)


@pytest.mark.parametrize(("channels", "masked"), [(3, False), (4, False), (3, True), (4, True)])
def test_they_are_the_pictures_that_are_held_otherwise(tmp_path, channels, masked):
    path = write_dataset(tmp_path, channels, masked=masked)
    whole, lazy = views_of(path), views_of(path, 1e-6)
    assert whole.store is None and lazy.store is not None and lazy.silhouettes == whole.silhouettes
    for name in PLANES:
        plane, expected = getattr(lazy, name), getattr(whole, name)
        if expected is None:
            assert plane is None
            continue
        assert plane.shape == expected.shape and len(plane) == 6
        assert torch.equal(plane[:], expected[:]) and torch.equal(plane[1], expected[1])
        assert torch.equal(plane[[4, 1]], expected[[4, 1]]) and torch.equal(plane[-1], expected[-1])
        assert torch.equal(plane[~whole.holdout], expected[~whole.holdout])
        assert torch.equal(plane[2, ..., 3:], expected[2, ..., 3:])
        assert torch.equal(plane[..., 3:], expected[:][..., 3:])
    assert torch.equal(lazy.image(2, WHITE), whole.image(2, WHITE))
    assert torch.equal(lazy.ground_truth_image(5, WHITE), whole.ground_truth_image(5, WHITE))
    assert torch.equal(lazy.cameras.c2w, whole.cameras.c2w) and lazy.names == whole.names


def test_two_splits_are_one(tmp_path):
    paths = [write_dataset(tmp_path / name, masked=masked) for name, masked in (("a", False), ("b", True))]
    whole, lazy = (join_views(*(views_of(path, gib, every=0) for path in paths), "here") for gib in (None, 1e-6))
    for name in ("rgb", "coverage", "ground_truth", "counted"):
        assert torch.equal(getattr(lazy, name)[:], getattr(whole, name)[:]), name
    assert lazy.names == whole.names and len(lazy.store) == 12


def test_beside_photographs_another_split_keeps_its_silhouettes(tmp_path):
    photographs, renders = (write_dataset(tmp_path / name) for name in ("a", "b"))
    for index in range(6):
        picture = np.full((12, 12, 3), 255, np.uint8)
        picture[4:8, 4:8] = 9
        write_image(tmp_path / f"b/r_{index}.png", picture)
    for paths in ((photographs, renders), (renders, photographs)):
        whole, lazy = (join_views(*(views_of(path, gib, every=0) for path in paths), "here") for gib in (None, 1e-6))
        assert not lazy.silhouettes and torch.equal(lazy.coverage[:], whole.coverage)
        assert sorted(plane.float().mean().item() == 255 for plane in lazy.coverage[:]) == [False] * 6 + [True] * 6


def pictures(size=10):
    def decode(index):
        decoded.append(index)
        plane = torch.full((size, size), index, dtype=torch.uint8)
        return Picture(View(plane[..., None].repeat(1, 1, 3), None, plane, None))

    decoded = []
    return decode, decoded


def test_what_is_kept_stays_within_the_budget():
    decode, decoded = pictures()
    store = PictureStore(decode, 9, 3 * 400)
    for index in (0, 1, 2, 0, 3, 0, 1):
        assert store[index].view.rgb[0, 0, 0] == index and store.nbytes <= 1200
    assert decoded == [0, 1, 2, 3, 1], "the one used last stays"
    tiny = PictureStore(decode, 9, 1)
    assert tiny[4].view.coverage[0, 0] == 4 and tiny.nbytes == 400, "one is kept in any case"


def test_many_threads_may_ask():
    decode, _ = pictures()
    store, found = PictureStore(decode, 9, 800), []
    threads = [
        threading.Thread(target=lambda: found.extend(int(store[i % 9].view.coverage[0, 0]) for i in range(200)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted([i % 9 for i in range(200)] * 4)
    assert store.nbytes <= 800


def test_a_damaged_picture_is_named_when_it_is_asked_for(tmp_path):
    views = views_of(write_dataset(tmp_path), 1e-6)
    whole = (tmp_path / "r_4.png").read_bytes()
    (tmp_path / "r_4.png").write_bytes(whole[: len(whole) // 2])
    assert views.rgb[1].shape == (6, 6, 3)
    with pytest.raises(InputError, match="r_4.png: image: found"):
        _ = views.rgb[4]


def test_a_fit_sees_the_same_pictures(tmp_path):
    path = write_dataset(tmp_path, masked=True, size=256)
    whole, lazy = (
        Pictures(views_from_images(path, width=None, background=WHITE, holdout_every=3, data=data), 1)
        for data in (None, DataConfig(memory_gib=1e-6))
    )
    assert len(lazy) == len(whole) == 4 and lazy.levels == whole.levels == 2
    for level in range(2):
        assert torch.equal(lazy.level(level)[2], whole.level(level)[2])
        assert torch.equal(lazy.counted(level, 0), whole.counted(level, 0))


def test_colour_and_alpha_put_together_by_hand():
    rgb, alpha = torch.tensor([[[1, 2, 3], [4, 5, 6]]], dtype=torch.uint8), torch.tensor([[0, 9]], dtype=torch.uint8)
    both = straight_rgba(rgb, alpha)
    assert both.dtype == torch.uint8 and both.tolist() == [[[1, 2, 3, 0], [4, 5, 6, 9]]]
    assert straight_rgba(rgb, None).tolist() == [[[1, 2, 3, 255], [4, 5, 6, 255]]]
