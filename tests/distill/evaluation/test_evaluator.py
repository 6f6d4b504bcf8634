"""Evaluation of students that are the teacher, the teacher with noise, and a blank picture."""

import csv
import logging
import math
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from distill.evaluation import evaluator, metrics, results
from distill.evaluation.evaluator import evaluate
from distill.evaluation.render_files import RenderFiles
from distill.evaluation.results import EVAL_COLUMNS, FRAME_COLUMNS
from distill.renderer import RenderedFrame
from distill.run_folder import RunFolder
from distill.schema import Config
from scene.cameras import Cameras
from scene.errors import InputError
from teacher.views import TeacherViews

CPU = torch.device("cpu")
FRAMES, SIDE = 10, 24
WHITE, GREY = (1.0, 1.0, 1.0), (0.5, 0.5, 0.5)


def make_frame(rgb, alpha):
    return RenderedFrame(rgb, alpha, torch.zeros_like(alpha))


def make_views(side=SIDE, alpha=True, ground_truth=True, holdout_every=4):
    """A disc of random colours; its middle pixel is missing in the ground truth."""
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randint(0, 256, (FRAMES, side, side, 3), generator=generator, dtype=torch.uint8)
    grid = torch.arange(side) - side / 2 + 0.5
    disc = (grid[:, None] ** 2 + grid[None] ** 2 < (side / 3) ** 2).to(torch.uint8).mul(255).expand(FRAMES, -1, -1)
    holdout = torch.zeros(FRAMES, dtype=torch.bool)
    if holdout_every:
        holdout[::holdout_every] = True
    truth = torch.cat([rgb, disc[..., None]], dim=-1).clone()
    truth[:, side // 2, side // 2, 3] = 0
    ones = torch.full((FRAMES,), float(side))
    cameras = Cameras(torch.eye(4).repeat(FRAMES, 1, 1), ones, ones, ones / 2, ones / 2, side, side)
    views = TeacherViews(
        cameras=cameras,
        names=tuple(f"r_{i}" for i in range(FRAMES)),
        rgb=rgb,
        alpha=disc,
        coverage=disc,
        distance=None,
        background=None,
        ground_truth=truth if ground_truth else None,
        holdout=holdout,
    )
    if alpha:
        return views
    grey = torch.stack([views.image(i, GREY) for i in range(FRAMES)]).mul(255).round().to(torch.uint8)
    return replace(views, rgb=grey, alpha=None, background=GREY)


@pytest.fixture
def setup(tmp_path):
    """Makes (config, prepared folder) from evaluation settings."""

    def make(tag="", background="white", **settings):
        settings = {"lpips": False, **settings}
        config = Config.model_validate(
            {
                "scene": "disc",
                "run": "test",
                "tag": tag,
                "teacher": {"kind": "bricks"},
                "data": {"resolution": SIDE},
                "render": {"background": background},
                "eval": settings,
            }
        )
        folder = RunFolder(config, tmp_path)
        folder.prepare(CPU)
        return config, folder

    return make


def the_teacher(views):
    def render(i, background):
        alpha = views.coverage[i].float() / 255
        return make_frame(views.image(i, background), alpha)

    return render


def with_noise(views, amount):
    """The teacher with the value of a whole checkerboard shifted by ``amount(i)``, away from 0 and 1."""

    def render(i, background):
        image = views.image(i, background)
        shift = torch.where(image > 0.5, -amount(i), amount(i))
        return make_frame(image + shift, torch.full(image.shape[:2], 0.25))

    return render


def blank(i, background):
    return make_frame(torch.tensor(background).expand(SIDE, SIDE, 3), torch.zeros(SIDE, SIDE))


def run(render, views, setup, step=20000, **settings):
    config, folder = setup(**settings)
    return evaluate(render, views, config, step, folder, CPU, progress=False), folder


def read_csv(path):
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    return reader.fieldnames, rows


def test_csv_columns_are_the_documented_ones(setup):
    _, folder = run(blank, make_views(), setup, tag="depth")
    columns, rows = read_csv(folder.logs / "eval_step_020000_depth.csv")
    assert ",".join(columns) == (
        "step,split,reference,frames,psnr,ssim,lpips_vgg,psnr_foreground,psnr_blank,alpha_mean,"
        "avg_fps,gpu_peak_gib,power_avg_w,collapsed,"
        "lpips_alex,depth_abs,depth_rel,alpha_iou,flicker,psnr_teacher,background,width,height"
    )
    assert [(row["split"], row["reference"], row["frames"]) for row in rows] == [
        ("holdout", "teacher", "3"),
        ("holdout", "ground_truth", "3"),
        ("train", "teacher", "7"),
        ("train", "ground_truth", "7"),
        ("all", "teacher", "10"),
        ("all", "ground_truth", "10"),
    ]
    for row in rows:  # no GPU, and LPIPS switched off: empty, never 0
        assert row["lpips_vgg"] == row["gpu_peak_gib"] == row["power_avg_w"] == ""
        assert row["step"] == "20000" and float(row["avg_fps"]) > 0
    columns, rows = read_csv(folder.logs / "eval_step_020000_depth_frames.csv")
    assert tuple(columns) == FRAME_COLUMNS and len(rows) == 20
    assert rows[0]["frame"] == "0" and rows[0]["name"] == "r_0" and rows[0]["split"] == "holdout"
    assert rows[2]["frame"] == "1" and rows[2]["split"] == "train" and float(rows[2]["render_s"]) > 0


def test_the_teacher_itself_scores_the_cap(setup):
    views = make_views()
    result, _ = run(the_teacher(views), views, setup)
    holdout, against_truth = result.rows[:2]
    assert holdout["psnr"] == holdout["psnr_foreground"] == metrics.PSNR_CAP_DB
    assert holdout["ssim"] == pytest.approx(1.0)
    assert holdout["alpha_mean"] == pytest.approx(views.coverage[0].float().mean().item() / 255)
    assert not result.collapsed and "COLLAPSED" not in result.evidence
    # ground truth lacks one pixel, which is background there: only that one differs
    mse = np.mean(
        [((1 - views.rgb[i, SIDE // 2, SIDE // 2].numpy() / 255) ** 2).sum() / SIDE**2 / 3 for i in (0, 4, 8)]
    )
    assert against_truth["psnr"] == pytest.approx(-10 * math.log10(mse), abs=3)
    assert against_truth["psnr_foreground"] == metrics.PSNR_CAP_DB  # its own alpha leaves that pixel out


def test_figures_are_means_of_per_frame_figures(setup):
    views = make_views()
    result, _ = run(with_noise(views, lambda i: 0.2 if i == 4 else 0.4), views, setup, reference="teacher")
    by_frame = {row["frame"]: row for row in result.frame_rows}
    assert by_frame[4]["psnr"] == pytest.approx(13.979, abs=1e-3)  # 0.2 is 51 of 255: rounding changes nothing
    assert by_frame[0]["psnr"] == pytest.approx(7.959, abs=1e-3)
    holdout, train, everything = result.rows
    assert holdout["psnr"] == pytest.approx((13.979 + 2 * 7.959) / 3, abs=1e-3)
    assert train["psnr"] == pytest.approx(7.959, abs=1e-3)
    assert everything["psnr"] == pytest.approx((13.979 + 9 * 7.959) / 10, abs=1e-3)
    assert holdout["alpha_mean"] == 0.25
    seconds = sum(row["render_s"] for row in result.frame_rows)
    assert everything["avg_fps"] == pytest.approx(10 / seconds)


def test_a_blank_student_is_collapsed_with_the_evidence(setup):
    views = make_views()
    result, folder = run(blank, views, setup)
    assert result.collapsed
    row = result.rows[0]
    assert result.evidence.startswith(f"COLLAPSED: holdout PSNR {row['psnr']:.2f} dB against the teacher is below")
    assert (
        f"a blank image ({row['psnr_blank']:.2f} dB); mean alpha 0.000, the teacher's coverage 0.3" in result.evidence
    )
    _, rows = read_csv(folder.eval_csv(20000))
    assert {row["collapsed"] for row in rows} == {"COLLAPSED"}
    assert "COLLAPSED" in result.summary_text()


def test_the_best_blank_student_is_collapsed_too(setup):
    views = make_views()

    def mean_colour(i, background):
        image = views.image(i, background)
        return make_frame(image.mean(dim=(0, 1)).expand_as(image), torch.ones(SIDE, SIDE))

    result, _ = run(mean_colour, views, setup)
    assert result.collapsed and "is within 0.5 dB of a blank image" in result.evidence


def test_holdout_decides_and_train_where_there_is_none(setup):
    views = make_views()

    def memorised(i, background):
        return blank(i, background) if views.holdout[i] else the_teacher(views)(i, background)

    result, _ = run(memorised, views, setup)
    assert result.collapsed
    assert [row["collapsed"] for row in result.rows[::2]] == ["COLLAPSED", None, None]

    views = make_views(holdout_every=0)
    result, _ = run(blank, views, setup)
    assert [row["split"] for row in result.rows[::2]] == ["train"]
    assert result.evidence.startswith("COLLAPSED: train PSNR")


def test_backgrounds(setup):
    """With alpha the configured background, without it the one the images have; ground truth follows."""
    asked = []

    def render(i, background):
        asked.append(tuple(background))
        return blank(i, background)

    run(render, make_views(), setup, background="black")
    assert set(asked) == {(0.0, 0.0, 0.0)}
    asked.clear()
    views = make_views(alpha=False)
    run(render, views, setup, background="black")
    assert set(asked) == {GREY}
    result, _ = run(lambda i, b: make_frame(views.ground_truth_image(i, b), torch.ones(SIDE, SIDE)), views, setup)
    assert result.rows[1]["psnr"] > 55  # 8-bit rounding alone


def test_one_warm_up_frame_is_rendered_and_not_counted(setup):
    calls = []

    def render(i, background):
        calls.append(i)
        assert not torch.is_grad_enabled()
        return blank(i, background)

    run(render, make_views(), setup, splits=["holdout"])
    assert calls == [0, 0, 4, 8]


def test_chosen_frames(setup):
    result, _ = run(blank, make_views(), setup, max_train_frames=3, splits=["train", "holdout"])
    assert [row["frames"] for row in result.rows[::2]] == [3, 3, 6]
    assert [row["frame"] for row in result.frame_rows[::2] if row["split"] == "train"] == [1, 3, 6]
    result, _ = run(blank, make_views(), setup, splits=["holdout"], reference="teacher")
    assert [(row["split"], row["reference"]) for row in result.rows] == [("holdout", "teacher")]
    result, _ = run(blank, make_views(ground_truth=False), setup, splits=["holdout"])
    assert [row["reference"] for row in result.rows] == ["teacher"]
    result, _ = run(blank, make_views(), setup, splits=["holdout"], reference="ground_truth")
    assert result.evidence.startswith("COLLAPSED: holdout PSNR") and "against ground truth" in result.evidence


def test_what_the_views_do_not_have_is_an_input_error(setup):
    with pytest.raises(InputError, match="eval.reference: found ground_truth"):
        run(blank, make_views(ground_truth=False), setup, reference="ground_truth")
    with pytest.raises(InputError, match="eval.splits"):
        run(blank, make_views(holdout_every=0), setup, splits=["holdout"])


def test_opaque_ground_truth_takes_its_foreground_from_the_teacher(setup):
    views = make_views()
    views.ground_truth[..., 3] = 255

    def wrong_outside(i, background):
        image = views.ground_truth_image(i, background)
        return make_frame(torch.where(views.coverage[i][..., None] > 0, image, 1 - image), torch.ones(SIDE, SIDE))

    result, _ = run(wrong_outside, views, setup)
    assert result.rows[1]["psnr_foreground"] == metrics.PSNR_CAP_DB > result.rows[1]["psnr"]


def test_tiny_pictures_leave_cells_empty(setup, monkeypatch):
    monkeypatch.setattr(metrics.Lpips, "load", lambda *_: FixedLpips())
    views = make_views(side=8)
    result, folder = run(the_teacher(views), views, setup, lpips=True, reference="teacher")
    _, rows = read_csv(folder.eval_csv(20000))
    assert {(row["ssim"], row["lpips_vgg"]) for row in rows} == {("", "")}
    assert float(rows[0]["psnr"]) == 100.0
    blank_psnr = f"{result.rows[0]['psnr_blank']:.2f}"
    first = result.summary_text().splitlines()[1]
    assert first.split() == ["holdout", "teacher", "3", "100.00", "-", "-", "100.00", blank_psnr]


class FixedLpips:
    def __call__(self, image, reference):
        return 0.25 if min(image.shape[:2]) >= 16 else None


def test_lpips_fills_its_column_or_leaves_it_empty(setup, monkeypatch):
    views = make_views()
    monkeypatch.setattr(metrics.Lpips, "load", lambda net, device: FixedLpips() if net == "vgg" else None)
    result, _ = run(the_teacher(views), views, setup, lpips=True)
    assert {row["lpips_vgg"] for row in result.rows} == {0.25}
    monkeypatch.setattr(metrics.Lpips, "load", lambda net, device: None)
    result, _ = run(the_teacher(views), views, setup, lpips=True)
    assert {row["lpips_vgg"] for row in result.rows} == {None}


def test_gpu_figures_reach_the_csv(setup, monkeypatch):
    class Monitor:
        def __init__(self, device): ...

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731
        mean_power_w = lambda self: 321.5  # noqa: E731

    monkeypatch.setattr(evaluator, "GpuMonitor", Monitor)
    monkeypatch.setattr(evaluator, "gpu_mem_gib", lambda device: 1.25)
    result, folder = run(blank, make_views(), setup)
    _, rows = read_csv(folder.eval_csv(20000))
    assert {(float(row["gpu_peak_gib"]), float(row["power_avg_w"])) for row in rows} == {(1.25, 321.5)}
    assert "GPU peak 1.25 GiB, mean power 322 W" in result.summary_text()


def test_pictures_on_disk(setup):
    views = make_views()
    amounts = {0: 0.05, 4: 0.2, 8: 0.1}
    result, folder = run(with_noise(views, lambda i: amounts.get(i, 0.3)), views, setup, tag="x")
    names = {path.name for path in folder.eval.iterdir()}
    assert names == {f"step_020000_x_frame_{i:05d}.png" for i in range(FRAMES)} | {
        "step_020000_x_worst_1_frame_00004.png",
        "step_020000_x_worst_2_frame_00008.png",
        "step_020000_x_worst_3_frame_00000.png",
        "step_020000_x_median_frame_00008.png",
        "step_020000_x_contact_sheet.png",
    }
    # anybody can repeat a figure from the files
    render = iio.imread(folder.eval / "step_020000_x_frame_00004.png").astype(np.float32) / np.float32(255)
    assert metrics.psnr(render, views.image(4, WHITE).numpy()) == result.frame_rows[8]["psnr"]
    assert result.frame_rows[8]["frame"] == 4

    # a second look at the same step leaves none of the first's pictures behind, and others' alone
    run(with_noise(views, lambda i: 0.1), views, setup, step=30000, tag="x", splits=["holdout"])
    run(with_noise(views, lambda i: 0.4 - 0.04 * i), views, setup, tag="x", splits=["holdout"], save_renders=False)
    names = {path.name for path in folder.eval.glob("step_020000*")}
    assert names == {
        "step_020000_x_worst_1_frame_00000.png",
        "step_020000_x_worst_2_frame_00004.png",
        "step_020000_x_worst_3_frame_00008.png",
        "step_020000_x_median_frame_00004.png",
        "step_020000_x_contact_sheet.png",
    }
    assert len(list(folder.eval.glob("step_030000*"))) == 8


def test_a_student_of_nan_is_reported(setup, caplog):
    views = make_views()
    frame = make_frame(torch.full((SIDE, SIDE, 3), torch.nan), torch.full((SIDE, SIDE), torch.nan))
    with caplog.at_level(logging.WARNING):
        result, folder = run(lambda i, background: frame, views, setup)
    assert result.collapsed
    assert "10 of 10 renders have NaN" in caplog.text
    assert not iio.imread(folder.eval / "step_020000_frame_00003.png").any()


def test_summary_is_a_table_a_person_can_read(setup):
    views = make_views()
    result, _ = run(with_noise(views, lambda i: 0.2), views, setup)
    lines = result.summary_text().splitlines()
    assert " ".join(lines[0].split()) == "split reference frames PSNR SSIM LPIPS PSNR fg PSNR blank"
    assert lines[1].split()[:4] == ["holdout", "teacher", "3", "13.98"]
    assert len(lines) == 1 + 6 + 2
    assert lines[-2].endswith(" frames/s")
    assert lines[-1] == result.evidence


def test_columns_hold_every_metric():
    names = {*results.METRICS, *results.MORE_METRICS}
    assert names < set(EVAL_COLUMNS) and names < set(FRAME_COLUMNS)


def counting(render):
    """The same renders, and the frames that were asked for."""
    asked = []

    def counted(i, background):
        asked.append(i)
        return render(i, background)

    return counted, asked


def test_a_second_run_measures_nothing_and_writes_the_same_bytes(setup):
    views = make_views()
    render, asked = counting(with_noise(views, lambda i: 0.02 * (i + 1)))
    config, folder = setup()
    evaluate(render, views, config, 20000, folder, CPU, identity="one", progress=False)
    before = {path: path.read_bytes() for path in (*folder.logs.iterdir(), *folder.eval.iterdir())}
    asked.clear()
    evaluate(render, views, config, 20000, folder, CPU, identity="one", progress=False)
    assert asked == []
    assert {path: path.read_bytes() for path in (*folder.logs.iterdir(), *folder.eval.iterdir())} == before
    evaluate(render, views, config, 20000, folder, CPU, identity="one", fresh=True, progress=False)
    assert asked == [0, *range(FRAMES)]


@pytest.mark.parametrize("change", ["identity", "reference image", "background", "camera"])
def test_what_was_measured_otherwise_is_measured_again(setup, change):
    views = make_views()
    render, asked = counting(with_noise(views, lambda i: 0.1))
    config, folder = setup()
    evaluate(render, views, config, 20000, folder, CPU, identity="one", progress=False)
    asked.clear()
    again = range(FRAMES)
    if change == "background":
        config, _ = setup(background="black")
    if change == "reference image":  # that of frame 3, which has a part in frame 4's flicker
        views.rgb[3] = views.rgb[3].flip(0)
        again = [3, 4]
    if change == "camera":
        views.cameras.fx[9] += 1
        again = [9]
    identity = "two" if change == "identity" else "one"
    evaluate(render, views, config, 20000, folder, CPU, identity=identity, progress=False)
    # the flicker of the first frame needs the one before, the first of all is the warm-up
    before = [again[0] - 1] if again[0] else []
    assert asked[1:] == [*before, *again]


def test_a_run_that_was_stopped_goes_on(setup):
    views = make_views()
    config, folder = setup()
    whole = with_noise(views, lambda i: 0.02 * (i + 1))
    expected = evaluate(whole, views, config, 20000, folder, CPU, progress=False).rows

    def stops(i, background):
        if i == 6:
            raise KeyboardInterrupt
        return whole(i, background)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluator, "_CHUNK_BYTES", 2 * SIDE * SIDE * 11)  # two frames at a time
        evaluate(stops, views, config, 20000, folder, CPU, identity="one", progress=False)
    render, asked = counting(whole)
    rows = evaluate(render, views, config, 20000, folder, CPU, identity="one", progress=False).rows
    assert asked == [5, 5, 6, 7, 8, 9]  # warm-up, then what flicker needs of frame 5, then the rest
    untimed = set(EVAL_COLUMNS) - {"avg_fps"}
    assert [{name: row[name] for name in untimed} for row in rows] == [
        {name: row[name] for name in untimed} for row in expected
    ]


def test_a_frame_whose_file_is_gone_is_rendered_again(setup):
    views = make_views()
    render, asked = counting(with_noise(views, lambda i: 0.1))
    config, folder = setup(splits=["holdout"])
    evaluate(render, views, config, 20000, folder, CPU, identity="one", progress=False)
    (folder.eval / "step_020000_frame_00004.png").unlink()
    asked.clear()
    evaluate(render, views, config, 20000, folder, CPU, identity="one", progress=False)
    assert asked == [4, 4]


def test_chunks_change_no_figure(setup, monkeypatch):
    views = make_views()
    render = with_noise(views, lambda i: 0.02 * (i + 1))
    whole, _ = run(render, views, setup)
    monkeypatch.setattr(evaluator, "_CHUNK_BYTES", 1)
    chunked, _ = run(render, views, setup)
    timed = {"avg_fps", "render_s"}
    for ours, theirs in zip(whole.rows + whole.frame_rows, chunked.rows + chunked.frame_rows, strict=True):
        assert {k: v for k, v in ours.items() if k not in timed} == {k: v for k, v in theirs.items() if k not in timed}


def test_flicker_is_of_neighbours_on_the_path_in_the_same_split(setup):
    views = make_views()
    result, _ = run(with_noise(views, lambda i: 0.2 if i == 5 else 0.0), views, setup, reference="teacher")
    flicker = [row["flicker"] for row in result.frame_rows]
    assert flicker[0] is None and flicker[1:5] == [0, 0, 0, 0]
    assert flicker[5:7] == [pytest.approx(0.2, abs=1e-6)] * 2
    holdout, train, everything = (row["flicker"] for row in result.rows)
    assert holdout is None  # frames 0, 4, 8
    assert train == pytest.approx(0.2 / 4)  # of 2, 3, 6, 7: what 5 and 9 follow is held out
    assert everything == pytest.approx(2 * 0.2 / 9)
    views.cameras.c2w[5] = torch.diag(torch.tensor([-1.0, 1, -1, 1]))  # looks the other way
    result, _ = run(blank, views, setup, reference="teacher")
    assert [row["frame"] for row in result.frame_rows if row["flicker"] is None] == [0, 5, 6]


def test_depth_and_silhouette_against_the_teacher(setup):
    views = make_views()
    views = replace(views, distance=torch.full((FRAMES, SIDE, SIDE), 4.0))

    def render(i, background):
        alpha = views.coverage[i].float() / 255
        return RenderedFrame(views.image(i, background), alpha, torch.full_like(alpha, 5.0))

    result, _ = run(render, views, setup)
    teacher, truth = result.rows[:2]
    assert (teacher["depth_abs"], teacher["depth_rel"], teacher["alpha_iou"]) == (1.0, 0.25, 1.0)
    assert truth["depth_abs"] is None and truth["depth_rel"] is None
    assert teacher["psnr_teacher"] is None and truth["psnr_teacher"] == truth["psnr"]  # the render is the teacher's
    inside = int((views.coverage[0] > 0).sum())
    assert truth["alpha_iou"] == pytest.approx((inside - 1) / inside)
    assert (teacher["background"], teacher["width"], teacher["height"]) == ("white", SIDE, SIDE)


def test_a_row_names_its_background(setup):
    result, _ = run(blank, make_views(), setup, background="black")
    assert result.rows[0]["background"] == "black"
    result, _ = run(blank, make_views(alpha=False), setup)
    assert result.rows[0]["background"] == "#808080"


def test_frames_like_a_teacher_s(setup):
    views = make_views()
    views = replace(views, alpha=(views.alpha // 2))
    config, folder = setup(splits=["holdout"], tag="x")
    files = RenderFiles.like_a_teacher(folder, 20000, rgba=True, depth=True)

    def render(i, background):
        alpha = views.alpha[i].float() / 255
        return RenderedFrame(views.image(i, background), alpha, alpha * 3)

    evaluate(render, views, config, 20000, folder, CPU, files=files, progress=False)
    root = folder.eval / "step_020000_x"
    for name in ("renders/{}.png", "rgba/{}.png", "depth/{}.npy"):
        folder_of = (root / name).parent
        assert sorted(path.name for path in folder_of.iterdir()) == [
            (root / name.format(f"0000{i}")).name for i in (0, 4, 8)
        ]
    assert not list(folder.eval.glob("step_020000_x_frame_*"))
    rgba = iio.imread(root / "rgba/00004.png").astype(np.float32) / 255
    over = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    assert np.abs(over * 255 - iio.imread(root / "renders/00004.png")).max() <= 1.5
    assert np.array_equal(np.load(root / "depth/00004.npy"), (views.alpha[4].float() / 255 * 3).numpy())


def test_lpips_of_the_networks_asked_for(setup, monkeypatch):
    monkeypatch.setattr(metrics.Lpips, "load", lambda net, device: FixedLpips() if net == "alex" else None)
    result, _ = run(the_teacher(make_views()), make_views(), setup, lpips=["alex"])
    assert (result.rows[0]["lpips_alex"], result.rows[0]["lpips_vgg"]) == (0.25, None)
