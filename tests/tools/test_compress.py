"""Compact files as a program makes them, and every command that takes one."""

import re
import time
from pathlib import Path

import pytest
import yaml

from distill.compact.container import is_compact
from distill.compression.compress import Wanted, compress
from distill.training.step import TrainingStep
from lego_response_distill import main as program
from settings.errors import InputError, TrainingDiverged
from settings.loading import load_config
from tests.program import arguments, csv_rows
from tests.toy_scene import mask_toy_scene, write_toy_scene
from tools.compress import main
from tools.evaluate import main as evaluate
from tools.export import main as export
from tools.render_path import main as film

QUICKLY = ("--set", "compact.max_steps=30", "--set", "compact.round_every=20")
OF_ANY_STUDENT = pytest.mark.parametrize("toy", ["hash_grid"], indirect=True)


@pytest.fixture(scope="module", params=["hash_grid", "kilo_uniform"])
def toy(request, tmp_path_factory):
    """A trained run of the toy scene."""
    folder = tmp_path_factory.mktemp("toy")
    config = write_toy_scene(folder)
    if request.param == "kilo_uniform":
        student = {"kind": "kilo_uniform", "grid": [2, 2, 2], "hidden_width": 16}
        config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), "student": student}))
    assert program(arguments(folder, "--max-steps", "60")) in (0, 3)
    return folder


def test_a_file_of_at_most_the_wanted_size_is_measured_filmed_and_named_in_the_csv(toy, capsys):
    assert main(arguments(toy, *QUICKLY, "--target-mib", "0.01")) == 0
    path = toy / "results/toy/first/checkpoints/step_000060.lrd"
    assert is_compact(path) and 0.006 * 2**20 < path.stat().st_size <= 0.01 * 2**20
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: ") and f"({path.stat().st_size:,} bytes; " in said

    assert program(arguments(toy, "--eval-only", "--checkpoint", str(path))) in (0, 3)
    size = csv_rows(toy / "logs/toy/first/eval_step_000060_compact_parity.csv")[0]["size_mib"]
    assert float(size) == path.stat().st_size / 2**20
    psnr = float(csv_rows(toy / "logs/toy/first/eval_step_000060_compact.csv")[0]["psnr"])
    assert psnr == pytest.approx(float(re.search(r"PSNR ([\d.]+) dB", said)[1]), abs=0.01)
    assert evaluate([str(path), "--assets", str(toy)]) in (0, 3)
    assert film([str(toy / "results/toy/first"), "--checkpoint", str(path), "--frames", "2"]) == 0


def test_a_safetensors_file_of_a_compact_one_leaves_its_figures_as_they_are(toy, tmp_path):
    path, made = tmp_path / "small.lrd", tmp_path / "small.safetensors"
    assert main(arguments(toy, *QUICKLY, "--target-mib", "0.01", "--file", str(path))) == 0
    assert export([str(path), "--assets", str(toy), "--safetensors", str(made)]) == 0
    sizes = {}
    for file, tag in ((path, "compact"), (made, "compact-safetensors")):
        assert program(arguments(toy, "--eval-only", "--checkpoint", str(file))) in (0, 3)
        sizes[tag] = toy / f"logs/toy/first/eval_step_000060_{tag}_parity.csv"
    small, large = (float(csv_rows(csv_file)[0]["size_mib"]) for csv_file in sizes.values())
    assert small == path.stat().st_size / 2**20 and large > small


def test_the_file_that_a_run_ended_with_is_not_replaced(tmp_path, capsys):
    write_toy_scene(tmp_path)
    run = ("--set", "compact.target_mib=0.02")
    assert program(arguments(tmp_path, "--max-steps", "30", *run)) in (0, 3)
    own = tmp_path / "results/toy/first/checkpoints/step_000030.lrd"
    before = own.read_bytes()
    assert main(arguments(tmp_path, *QUICKLY, "--target-mib", "0.01")) == 2
    assert f"{own}: compact file: found the file that the run ended with" in capsys.readouterr().err
    assert own.read_bytes() == before
    other = tmp_path / "other.lrd"
    assert main(arguments(tmp_path, *QUICKLY, "--target-mib", "0.01", "--file", str(other))) == 0
    assert own.read_bytes() == before and is_compact(other)


@OF_ANY_STUDENT
def test_compiling_does_not_count_as_time(toy, tmp_path, monkeypatch):
    step, taken = TrainingStep.__call__, []

    def slow_at_first(*given):
        taken.append(1)
        if len(taken) == 1:
            time.sleep(1)
        return step(*given)

    monkeypatch.setattr(TrainingStep, "__call__", slow_at_first)
    config = load_config(toy / "toy.yaml", ["compact.seconds=0.3", "compact.round_every=20"], toy)
    compress(config, toy, Wanted(0.01), path=tmp_path / "small.lrd")
    assert len(taken) > 1


def test_a_loss_is_kept_within_what_is_allowed(toy, capsys, tmp_path):
    path = tmp_path / "small.lrd"
    assert main([str(toy / "results/toy/first"), *QUICKLY, "--max-loss-db", "0.5", "--file", str(path)]) == 0
    lost, way = re.search(r"([\d.]+) dB (below|above) the checkpoint's", capsys.readouterr().out).groups()
    assert (way == "above" or float(lost) <= 0.5) and path.stat().st_size < 0.03 * 2**20


@pytest.mark.parametrize("asynchronous", [False, True], ids=["at once", "as on CUDA"])
def test_steps_that_are_not_finite_are_found_out(toy, asynchronous, tmp_path, monkeypatch):
    make = lambda *given: TrainingStep(*given[:-1], asynchronous)  # noqa: E731
    monkeypatch.setattr("distill.compression.compress.TrainingStep", make)
    settings = "compact.max_steps=5", "train.lr=1e30", "train.lr_mlp=1e30"
    config = load_config(toy / "toy.yaml", settings, toy)
    with pytest.raises(TrainingDiverged):
        compress(config, toy, Wanted(0.01), path=tmp_path / "none.lrd")


def test_pixels_that_a_mask_leaves_out_are_not_measured(tmp_path, capsys):
    write_toy_scene(tmp_path, teacher={"kind": "images", "outputs": None, "ply": None})
    mask_toy_scene(tmp_path)
    assert program(arguments(tmp_path, "--max-steps", "60")) in (0, 3)
    measured = [float(csv_rows(tmp_path / "logs/toy/first/eval_step_000060.csv")[0]["psnr"])]
    path = tmp_path / "small.lrd"
    assert main(arguments(tmp_path, *QUICKLY, "--max-loss-db", "0.5", "--file", str(path))) == 0
    psnr, before = re.search(r"PSNR ([\d.]+) dB .* checkpoint's ([\d.]+), on", capsys.readouterr().out).groups()
    assert program(arguments(tmp_path, "--eval-only", "--checkpoint", str(path))) in (0, 3)
    measured.append(float(csv_rows(tmp_path / "logs/toy/first/eval_step_000060_compact.csv")[0]["psnr"]))
    assert [float(before), float(psnr)] == pytest.approx(measured, abs=0.01)


def test_a_student_that_was_trained_beside_a_projector_is_compressed(tmp_path, capsys):
    path = write_toy_scene(tmp_path, loss={"feature_l2": {"weight": 0.1}}, features={"resolution": 16})
    # Cells' common part, a group of Adam's, is behind the projector's.
    student = {"kind": "kilo_uniform", "grid": [2, 2, 2], "hidden_width": 16}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "student": student}))
    more = ("--set", "train.lr_common=0.01")
    assert program(arguments(tmp_path, "--max-steps", "60", *more)) in (0, 3)
    assert main(arguments(tmp_path, *QUICKLY, *more, "--target-mib", "0.01")) == 0
    made = tmp_path / "results/toy/first/checkpoints/step_000060.lrd"
    assert is_compact(made) and made.stat().st_size <= 0.01 * 2**20
    assert f"{made}: " in capsys.readouterr().out


@OF_ANY_STUDENT
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--target-mib", "0.0001"], "--target-mib: size: found 0.0001 MiB, expected more than 0.00"),
        (["--file", "{folder}/x.pth"], "--file: file: found x.pth, expected a name that ends in .lrd"),
        (["--file", "{folder}/toy.yaml/a.lrd"], "a.lrd: compact file"),
        (["--checkpoint", "{folder}/none.pth"], "no such file"),
        (["--set", "compact.seconds=0"], "compact.seconds"),
    ],
)
def test_what_cannot_be_is_one_message(toy, more, said, capsys):
    more = [text.format(folder=toy) for text in more]
    assert main(arguments(toy, *QUICKLY, *more)) == 2
    assert said in capsys.readouterr().err


@OF_ANY_STUDENT
def test_a_size_is_called_what_it_was_asked_for_by(toy):
    config = load_config(toy / "toy.yaml", QUICKLY[1::2], toy)
    with pytest.raises(InputError, match="--sizes: size: found 0.0001 MiB, expected more than 0.00"):
        compress(config, toy, Wanted(0.0001, option="--sizes"))


@OF_ANY_STUDENT
def test_a_compact_file_is_not_trained_on_nor_compressed_again(toy, capsys, tmp_path):
    path = tmp_path / "a.lrd"
    assert main(arguments(toy, *QUICKLY, "--target-mib", "0.02", "--file", str(path))) == 0
    assert program(arguments(toy, "--resume", str(path))) == 2
    assert main(arguments(toy, "--checkpoint", str(path))) == 2
    said = capsys.readouterr().err
    assert said.count("found a compact file") == 2


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "much"])
def test_a_size_is_a_number_above_zero(text, capsys):
    with pytest.raises(SystemExit):
        main(["--config", "x.yaml", f"--target-mib={text}"])
    assert "expected a number above 0" in capsys.readouterr().err


def test_without_a_checkpoint_there_is_nothing_to_compress(tmp_path: Path, capsys):
    write_toy_scene(tmp_path)
    assert main(arguments(tmp_path)) == 2
    assert "expected a checkpoint to compress" in capsys.readouterr().err
