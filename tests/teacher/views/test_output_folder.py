"""Which files are a teacher's outputs and ground truth, and what is said of those that are missing or damaged."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from scene.formats.transforms_json import write_transforms
from scene.images import write_image
from settings.errors import InputError
from teacher.views import output_folder
from teacher.views.output_folder import numbered_files, parallel_map
from teacher.views.teacher_views import views_from_outputs
from tests.teacher.toy_outputs import BOX, FRAMES, HEIGHT, WHITE, WIDTH, load, ring


def test_frames_slice_picks_renders_and_poses_alike(teacher):
    views = load(teacher, frames="1::1")
    assert views.names == ("r_1", "r_2") and views.rgb[0, 2, 2, 2] == 10
    assert torch.equal(views.cameras.c2w, ring(FRAMES, WIDTH, HEIGHT).c2w[1:])
    assert views.holdout.tolist() == [True, False]
    for bad in ("5:", "2:1", "x", "::0", "1"):
        with pytest.raises(InputError, match="data.frames: found"):
            load(teacher, frames=bad)


def test_of_files_read_ahead_those_that_nobody_waits_for_any_more_are_not_begun(monkeypatch):
    begun, given_up = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            given_up.set()
            super().shutdown(wait=wait)

    def load(index):
        begun.append(index)
        assert index == 0 or given_up.wait(60)
        return index

    monkeypatch.setattr(output_folder, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(output_folder, "available_threads", lambda: 2)
    loaded = parallel_map(load, 100)
    assert next(loaded) == 0
    loaded.close()
    assert len(begun) <= 3


def test_no_more_is_under_way_at_a_time_than_is_asked_for(monkeypatch):
    monkeypatch.setattr(output_folder, "available_threads", lambda: 8)
    by = list(parallel_map(lambda index: (index, threading.get_ident()), 40, 1))
    assert [index for index, _ in by] == [*range(40)] and len({thread for _, thread in by}) == 1
    assert list(parallel_map(str, 0)) == [] and list(parallel_map(str, 2, 5)) == ["0", "1"]


def test_ground_truth_of_which_some_has_alpha_is_a_warning_that_counts_it(teacher, caplog):
    for i in range(FRAMES):
        write_image(teacher / f"r_{i}.png", np.full((HEIGHT, WIDTH, 4 if i == 1 else 3), 99, np.uint8))
    assert load(teacher).ground_truth[:, 0, 0, 3].tolist() == [255, 99, 255]
    words = "r_1.png: channels: found alpha (1 of 3 images have alpha), expected no alpha as r_0.png, the first image."
    assert words in caplog.text and "As ground truth only those with alpha are put on" in caplog.text


def test_ground_truth_is_the_datasets_own(teacher):
    for i in range(FRAMES):
        picture = np.zeros((2 * HEIGHT, 2 * WIDTH, 4), np.uint8)
        picture[:2, :2] = [200, 0, 0, 255]
        picture[0, 0] = 0
        write_image(teacher / f"r_{i}.png", picture)
    # The dataset is at 24 x 16, the teacher rendered at half of it.
    write_transforms(teacher / "transforms.json", ring(FRAMES, 2 * WIDTH, 2 * HEIGHT), ["r_0", "r_1", "r_2"])
    views = load(teacher)
    assert views.ground_truth.shape == (FRAMES, HEIGHT, WIDTH, 4)
    assert views.ground_truth[0, 0, 0].tolist() == [200, 0, 0, 191]
    assert views.alpha is None, "the dataset's alpha is not the teacher's"
    image = views.ground_truth_image(0, (0.0, 0.0, 1.0))[0, 0]
    assert image.tolist() == pytest.approx([200 / 255 * 191 / 255, 0, 64 / 255])
    assert torch.allclose(views.cameras.fx, ring(FRAMES, WIDTH, HEIGHT).fx)
    assert load(teacher, ground_truth=False).ground_truth is None


def test_gt_folder_stands_in_where_the_dataset_has_no_images(teacher):
    for i in range(FRAMES):
        write_image(teacher / "ours_7" / "gt" / f"{i:05d}.png", np.full((HEIGHT, WIDTH, 3), 7 * i, np.uint8))
    assert load(teacher).ground_truth[2, 0, 0].tolist() == [14, 14, 14, 255]
    assert load(teacher, frames="2:").ground_truth[0, 0, 0].tolist() == [14, 14, 14, 255]
    (teacher / "ours_7" / "gt" / "00002.png").unlink()
    with pytest.raises(InputError, match="gt: number of files: found 2 files for the 3 frames"):
        load(teacher)


def test_missing_ground_truth_is_said(teacher, caplog):
    assert load(teacher, ground_truth=False).ground_truth is None
    assert "ground truth" not in caplog.text
    assert load(teacher).ground_truth is None
    assert "no ground truth found: none of the 3 frames has an image on disk" in caplog.text


def test_renders_do_not_pass_for_ground_truth(teacher):
    # Numbered otherwise than graphdeco does, so that only their folder tells.
    renders = teacher / "ours_7" / "renders"
    for i in range(FRAMES):
        (renders / f"{i:05d}.png").rename(renders / f"{i}.png")
    names = [f"ours_7/renders/{i}" for i in range(FRAMES)]
    write_transforms(teacher / "transforms.json", ring(FRAMES, WIDTH, HEIGHT), names)
    assert load(teacher).ground_truth is None
    for i in range(FRAMES):
        write_image(teacher / "ours_7" / "gt" / f"{i}.png", np.full((HEIGHT, WIDTH, 3), 7 * i, np.uint8))
    assert load(teacher).ground_truth[2, 0, 0].tolist() == [14, 14, 14, 255]


def test_parent_folder_with_one_round(teacher):
    options = {"box": BOX, "background": WHITE, "depth_kind": "z", "holdout_every": 0}
    assert len(views_from_outputs(teacher, teacher / "transforms.json", **options)) == FRAMES
    (teacher / "ours_9" / "renders").mkdir(parents=True)
    with pytest.raises(InputError, match="teacher outputs: found ours_7, ours_9, expected renders/"):
        views_from_outputs(teacher, teacher / "transforms.json", **options)
    with pytest.raises(InputError, match="teacher outputs: found no such folder"):
        views_from_outputs(teacher / "nowhere", teacher / "transforms.json", **options)
    (teacher / "other").mkdir()
    with pytest.raises(InputError, match="teacher outputs: found an empty folder"):
        views_from_outputs(teacher / "other", teacher / "transforms.json", **options)


def test_renders_of_frames_whose_cameras_are_changed_here_are_refused(teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = teacher / "transforms.json"
    content = json.loads(path.read_text())
    content["frames"][1] |= {"w": WIDTH, "h": HEIGHT - 2}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="image size: found 2 sizes, expected one, as the renders on disk have"):
        load(teacher)
    content["frames"][1] |= {"h": HEIGHT, "k1": 0.1}
    path.write_text(json.dumps(content))
    assert len(load(teacher)) == FRAMES  # no picture, so nothing is moved
    write_image(teacher / "r_1.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    with pytest.raises(InputError, match="lens: found 1 of 3 pictures undistorted.*teacher.kind: gaussians"):
        load(teacher)


def test_of_many_files_the_first_are_named_and_the_others_counted(tmp_path):
    for index in range(12):
        (tmp_path / f"{index:05d}.png").touch()
    with pytest.raises(InputError, match=r"files: found 00000.png, .*00007.png and 4 more, expected 00000.npy"):
        numbered_files(tmp_path, ".npy")


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def picture(name, width=WIDTH, height=HEIGHT, channels=3):
    return lambda folder: write_image(folder / name, np.zeros((height, width, channels), np.uint8))


def array(name, values):
    return lambda folder: np.save(folder / name, values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            remove("renders/00002.png"),
            r"renders: number of files: found 2 files for the 3 frames of .*JSON whose poses",
        ),
        (remove("depth/00002.npy"), "depth: number of files: found 2 files for the 3 frames"),
        (remove("renders/00001.png"), "renders: numbering: found no 00001.png among 2 files up to 00002.png"),
        (remove("depth/00000.npy"), "depth: numbering: found no 00000.npy"),
        (picture("renders/00003.png"), "renders: number of files: found 4 files for the 3 frames"),
        (remove(*(f"renders/{i:05d}.png" for i in range(3))), "renders: files: found an empty folder"),
        (picture("renders/00001.png", width=10), "00001.png: image size: found 10x8, expected 12x8 as the first"),
        (
            picture("renders/00001.png", channels=4),
            "00001.png: channels: found alpha .1 of 3 images have alpha., expected no alpha as 00000.png",
        ),
        (picture("renders/00000.png", width=9), "00000.png: image size: found 9x8, expected the shape of .* 12x8"),
        (array("depth/00001.npy", np.ones((4, 6), np.float32)), "00001.npy: depth size: found 6x4, expected 12x8"),
        (array("depth/00001.npy", np.full((8, 12), -1.0)), "00001.npy: depth: found 96 negative of 96 values"),
        (array("depth/00001.npy", np.full((8, 12), np.nan)), "00001.npy: depth: found 96 NaN of 96 values"),
        (lambda folder: (folder / "renders/00001.png").write_bytes(b"\x89PNG"), "00001.png: image: found unreadable"),
        (
            array("depth/1.npy", np.ones((8, 12), np.float32)),
            "depth: numbering: found 00001.npy and 1.npy, both number 1, .* Remove one",
        ),
        (
            lambda folder: [path.rename(path.with_suffix(".PNG")) for path in (folder / "depth").iterdir()],
            "depth: files: found 00000.PNG, .*Depth in .png is not read: save float32 .npy .*Or set teacher.depth_kind",
        ),
        (lambda folder: (folder / "depth").rename(folder / "no"), "depth: folder: found nothing.*depth_kind: none"),
    ],
)
def test_bad_outputs(teacher, damage, message):
    damage(teacher / "ours_7")
    with pytest.raises(InputError, match=message):
        load(teacher)


def test_wider_than_native(teacher):
    with pytest.raises(
        InputError, match="image size: found a width of 12 pixels, expected at least data.resolution 13"
    ):
        load(teacher, width=13)


def test_loading_leaves_torchs_threads_as_they_were(teacher):
    before = torch.get_num_threads()
    load(teacher)
    with pytest.raises(InputError):
        load(teacher, width=99)
    assert torch.get_num_threads() == before
