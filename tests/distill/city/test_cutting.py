"""A toy city cut in blocks: what is in its folder, what each block's run is given, how far its runs are."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from distill.city import block_runs, cutting
from distill.city.block_runs import blocks_table, cell_size, open_city, run_blocks, students_of
from distill.city.coverage import cameras_of_blocks
from distill.city.manifest import read_manifest
from distill.executors.job import JobState, Phase
from machine.files import write_csv
from machine.run_folder import RunFolder
from scene.rays import SceneBox
from settings.errors import ExitCode, InputError
from settings.loading import load_config
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings
from teacher.gaussian_files.ply import read_ply
from teacher.sources import load_teacher, source_of
from tests.toy_scene import add_training_split, block_of_gaussians, write_toy_scene

CITY = {"blocks": [2, 1, 1], "budget_mib": 0.25}


def toy_city(root, overrides=(), **sections):
    given = {"teacher": {"kind": "gaussians", "outputs": None, "fitted_width": 24}, "city": CITY} | sections
    return load_config(write_toy_scene(root, **given), overrides, assets=root)


@pytest.fixture
def made(tmp_path):
    config = toy_city(tmp_path)
    return config, open_city(config, tmp_path / "city", resume=False)


def block_config(manifest, name):
    return load_config(manifest.path(f"blocks/{name}/config.yaml"), assets=manifest.folder)


def test_what_a_killed_process_left_is_deleted_but_in_the_blocks_own_runs(tmp_path):
    folder = tmp_path / "city"
    left = [folder / part / ".x.4194400.0.tmp.ply" for part in (".", "blocks/b000", "blocks/b000/run/results/toy/b000")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    open_city(toy_city(tmp_path), folder, resume=False)
    assert [path.exists() for path in left] == [False, False, True]


def test_that_blocks_learn_from_no_images_is_said_where_some_were_asked_for(tmp_path, caplog):
    for name, data in (("without", {}), ("with", {"ground_truth": {"split": "train"}})):
        (tmp_path / name).mkdir()
        manifest = open_city(toy_city(tmp_path / name, data=data), tmp_path / name / "city", resume=False)
        assert block_config(manifest, "b000").data.ground_truth is False
        assert ("images (data.ground_truth, --source) have no part in it" in caplog.text) == (name == "with")


@pytest.mark.parametrize("pairs", [cutting._PAIRS, 100])
def test_a_block_is_given_what_reaches_into_it_and_who_sees_it(tmp_path, monkeypatch, caplog, pairs):
    monkeypatch.setattr(cutting, "_PAIRS", pairs)
    caplog.set_level("INFO")
    config = toy_city(tmp_path)
    manifest = open_city(config, tmp_path / "city", resume=False)
    assert re.search(r"the city's box: \[-0\.\d{1,3}, [^a-z]*\] to \[0\.\d{1,3}, ", caplog.text)  # to three decimals
    left, right = manifest.blocks
    assert left.upper[0] == right.lower[0] == pytest.approx(0.0, abs=0.051)
    assert manifest.gaussians.count == 729 and manifest.path(manifest.gaussians.file).samefile(config.teacher.ply)
    # 9 columns of Gaussians, 0.1 apart, of 0.05: 3 deviations reach over a face from up to two columns away.
    whole = block_of_gaussians()
    for block in manifest.blocks:
        near = (whole.means[:, 0] + 0.15 > block.lower[0]) & (whole.means[:, 0] - 0.15 < block.upper[0])
        own = read_ply(manifest.path(f"blocks/{block.name}/gaussians.ply"))
        assert own.fingerprint() == whole[near].fingerprint() and block.gaussians == len(own) < 729
        assert (block.train_cameras, block.holdout_cameras, block.status) == (12, 5, "waiting")
    assert left.budget_mib + right.budget_mib == pytest.approx(0.25)
    rest = 0.25 - 2 * 8192 / 2**20
    shares = [block.gaussians / (left.gaussians + right.gaussians) for block in (left, right)]
    assert [block.budget_mib - 8192 / 2**20 for block in (left, right)] == pytest.approx([rest * one for one in shares])
    given = block_config(manifest, "b001")
    assert given.data.box.lower == right.lower and given.compact.target_mib == right.budget_mib
    assert (given.scene, given.run, given.student.table_size) == ("toy", "b001", 1024)
    views = load_teacher(given).views
    assert views.holdout.sum() == 5 and torch.equal(views.cameras.c2w[0], source_of(config).frames()[0].cameras.c2w[1])
    # The toy's far half is not in its pictures: where the whole has a full picture, a half has half of one.
    covered = [load_teacher(block_config(manifest, block.name)).views.alpha.float().mean() for block in manifest.blocks]
    full = load_teacher(toy_city(config.teacher.ply.parent)).views.alpha.float().mean()
    assert max(covered) < 0.8 * full < sum(covered)


def test_blocks_of_a_teacher_in_larger_units_are_those_of_one_in_the_cameras_world(made, tmp_path):
    content = json.loads((tmp_path / "data/transforms.json").read_text())
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 100
    (tmp_path / "metres.json").write_text(json.dumps(content))
    (tmp_path / "cfg_args").write_text("Namespace(resolution=24)")  # what graphdeco's program leaves beside a PLY
    data = {"transforms": "metres.json", "near": 5.0, "far": 10_000.0}
    teacher = {"kind": "gaussians", "outputs": None, "scale": 100.0}
    larger = open_city(toy_city(tmp_path, data=data, teacher=teacher), tmp_path / "larger", resume=False)
    for mine, block in zip(larger.blocks, made[1].blocks, strict=True):
        assert mine.lower == pytest.approx([100 * side for side in block.lower])
        assert mine.upper == pytest.approx([100 * side for side in block.upper])
        counts = block.gaussians, block.train_cameras, block.holdout_cameras
        assert (mine.gaussians, mine.train_cameras, mine.holdout_cameras) == counts
        config, unscaled = block_config(larger, mine.name), block_config(made[1], block.name)
        assert (config.teacher.scale, config.teacher.near_plane, config.teacher.fitted_width) == (1.0, 20.0, 24)
        found, expected = (load_teacher(given) for given in (config, unscaled))
        torch.testing.assert_close(found.gaussians.means, 100 * expected.gaussians.means)
        torch.testing.assert_close(found.gaussians.scales, 100 * expected.gaussians.scales)
        torch.testing.assert_close(found.views.cameras.centers, 100 * expected.views.cameras.centers)
        assert (found.views.rgb.int() - expected.views.rgb.int()).abs().max() <= 1
        assert (found.views.alpha.int() - expected.views.alpha.int()).abs().max() <= 1


def test_frames_of_two_files_offsets_and_blocks_that_nobody_sees(tmp_path):
    add_training_split(tmp_path)
    data = {"train_transforms": "data/transforms_train.json", "offset": [5000.0, 0.0, 0.0], "near": 0.05, "far": 2.0}
    data |= {"box": {"lower": [-40.0, -0.5, -0.5], "upper": [0.5, 0.5, 0.5]}}
    manifest = open_city(toy_city(tmp_path, data=data), tmp_path / "city", resume=False)
    empty, all_of_it = manifest.blocks
    assert (empty.status, all_of_it.status) == ("done", "waiting") and empty.gaussians == 0
    assert (all_of_it.train_cameras, all_of_it.holdout_cameras) == (12, 17)
    given = block_config(manifest, "b001")
    found, expected = load_teacher(given).views, load_teacher(toy_city(tmp_path, data=data)).views
    assert torch.allclose(found.cameras.c2w, expected.cameras.c2w, atol=1e-6)


def test_a_block_that_no_camera_sees_takes_no_part_of_the_budget(tmp_path, monkeypatch, caplog):
    def none_of_the_first(*given):
        seen = cameras_of_blocks(*given)
        seen[:, 0] = False
        return seen

    monkeypatch.setattr(cutting, "cameras_of_blocks", none_of_the_first)
    unseen, seen = open_city(toy_city(tmp_path), tmp_path / "city", resume=False).blocks
    assert unseen.gaussians > 0 and f"block b000: {unseen.gaussians} Gaussians that no camera sees" in caplog.text
    assert (unseen.status, unseen.budget_mib) == ("done", None)
    assert (seen.status, seen.budget_mib) == ("waiting", 0.25)


def test_a_city_that_no_camera_sees_is_refused_and_nothing_is_written(tmp_path):
    config = toy_city(tmp_path, ["data.far=0.5"])
    with pytest.raises(InputError, match="none of 12 sees enough of a block, .*data.far 0.5 of them. Leave out"):
        open_city(config, tmp_path / "city", resume=False)
    assert not list((tmp_path / "city").rglob("*.*"))


def test_teachers_without_gaussians_are_refused(tmp_path):
    config = toy_city(tmp_path, teacher={"kind": "images", "outputs": None}, loss={"depth": {"weight": 0.0}})
    with pytest.raises(InputError, match="teacher.kind: found images"):
        open_city(config, tmp_path / "city", resume=False)
    assert not (tmp_path / "city").exists()


def test_a_far_field_is_a_run_of_its_own(tmp_path):
    config = toy_city(tmp_path, ["far_field.kind=contracted"])
    with pytest.raises(InputError, match="far_field.kind: found contracted, expected none, .* docs/scaling.md"):
        open_city(config, tmp_path / "city", resume=False)
    assert not (tmp_path / "city").exists()


def test_a_city_goes_on_with_the_settings_it_was_made_with(made, tmp_path):
    config, manifest = made
    folder = manifest.folder
    with pytest.raises(InputError, match="found a city.json already, expected no city. Go on with it: --resume"):
        open_city(config, folder, resume=False)
    longer = toy_city(tmp_path, ["train.max_steps=400", "city.executor.workers=3", "city.joint_steps=5"])
    assert open_city(longer, folder, resume=True) == manifest
    assert load_config(folder / "city.yaml") == longer and block_config(manifest, "b000").train.max_steps == 400
    with pytest.raises(InputError, match="city.yaml: city.blocks: found .2, 1, 1., expected .1, 1, 2."):
        open_city(toy_city(tmp_path, ["city.blocks=[1, 1, 2]"]), folder, resume=True)


def test_a_city_of_an_earlier_version_goes_on_without_a_setting_that_is_gone(made, caplog):
    config, manifest = made
    stored = manifest.path("city.yaml")
    stored.write_text(f"{stored.read_text()}assistant_student: null\n".replace("train:\n", "train:\n  assistant: 1\n"))
    assert open_city(config, manifest.folder, resume=True) == manifest
    assert re.search(r"city.yaml: trained with train.assistant: 1. This setting no longer exists", caplog.text)
    assert load_config(stored) == config


def test_the_manifest_says_how_far_the_runs_are(made, monkeypatch):
    config, manifest = made
    seen = []

    def run(jobs, settings, folder, on_state):
        assert folder == manifest.folder
        for job in jobs:
            assert job.command[2:4] == ["--config", str(manifest.folder / f"blocks/{job.name}/config.yaml")]
            on_state(job, JobState(Phase.RUNNING, 1))
            seen.append([block.status for block in read_manifest(manifest.folder).blocks])
        job.run.create()
        job.run.checkpoint_path(300).write_bytes(bytes(2**20))
        on_state(jobs[1], JobState(Phase.DONE, 1, 0))
        return {"b000": JobState(Phase.RUNNING, 1), "b001": JobState(Phase.DONE, 1, 0)}

    monkeypatch.setattr(block_runs, "run", run)
    ended, status = run_blocks(config, manifest)
    assert status == ExitCode.DONE and seen == [["running", "waiting"], ["running", "running"]]
    (student,) = read_manifest(manifest.folder).block("b001").students
    assert student.file == "blocks/b001/run/results/toy/b001/checkpoints/step_000300.pth"
    assert student.cell_size == pytest.approx(np.ptp([ended.blocks[1].lower, ended.blocks[1].upper], axis=0).max() / 32)
    # The checkpoint of 1 MiB is not the student, which is this large as float32.
    settings = block_config(ended, "b001").student
    mib = f"{4 * HashGridStudent.parameters_of(settings) / 2**20:.2f}"
    assert mib == "0.03" and f"| b001 | 486 | 12 | 5 | {mib} |  |  | 300 |  | done |" in blocks_table(ended)
    assert f"all together: 300 steps in 0 s of training, students of {mib} MiB" in blocks_table(ended)
    folder = RunFolder(block_config(ended, "b001"), ended.path(ended.blocks[1].run))
    measured = [{"split": split, "psnr": psnr, "psnr_blank": 38} for split, psnr in (("holdout", 45.5), ("train", 40))]
    write_csv(folder.eval_csv(300), measured, ("split", "psnr", "psnr_blank"))
    assert f"| {mib} | 45.50 | 38.00 | 300 |  | done |" in blocks_table(ended)
    folder.compact_path(300).write_bytes(b"small")
    compact = students_of(ended, ended.blocks[1], folder)
    assert compact[0].bytes == 5 and "students of 0.00 MiB" in blocks_table(ended.with_block("b001", students=compact))
    failed = {"b000": JobState(Phase.FAILED, 4, 137), "b001": JobState(Phase.FAILED, 1, 3)}
    monkeypatch.setattr(block_runs, "run", lambda *_: failed)
    assert run_blocks(config, manifest)[1] == ExitCode.MACHINE_FAILED


def test_the_finest_detail_of_a_student_may_be_its_planes_or_its_cells_octaves():
    box = SceneBox((0, 0, 0), (8, 4, 4))
    assert cell_size(HashGridSettings(finest_resolution=64), box) == 8 / 64
    assert cell_size(HashGridSettings(finest_resolution=64, planes=(32, 128)), box) == 8 / 128
    assert cell_size(KiloUniformSettings(grid=(4, 2, 2), frequencies=3), box) == 2 / 8


def test_a_budget_too_small_for_any_files_is_refused_before_a_block_begins(tmp_path):
    with pytest.raises(InputError, match=r"city.budget_mib: found 0.01, expected more than 0.0156, 8,192 bytes .* 2 "):
        open_city(toy_city(tmp_path, ["city.budget_mib=0.01"]), tmp_path / "city", resume=False)
    assert not [path for path in (tmp_path / "city").rglob("*") if path.is_file()]
