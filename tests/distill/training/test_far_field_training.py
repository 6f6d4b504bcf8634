"""The toy scene with a box around a part of it, the rest of which the far field learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill.model.checkpoint import load_checkpoint
from distill.model.model import Model, build_model, restore_model
from distill.training.step_graph import graph_refusal
from settings.errors import InputError
from settings.loading import load_config
from teacher.sources import load_teacher
from tests.toy_scene import write_toy_scene
from tests.toy_training import CPU, trainer_of
from tools.compress import main as compress

FAR = {
    "kind": "contracted", "reach": 4.0, "step": 0.05, "occupancy_resolution": 32, "levels": 4, "table_size": 1024,
    "finest_resolution": 64, "hidden_width": 16,
}  # fmt: skip
# The block is 0.8 wide.
BOX = {"lower": [-0.15, -0.4, -0.4], "upper": [0.15, 0.4, 0.4]}


def toy_with(folder: Path, **far: object) -> Path:
    data = {"box": BOX} if far else {}
    train = {"checkpoint_steps": [30], "samples_per_step": 2048, "lr": 0.05}
    return write_toy_scene(
        folder, data=data, far_field=far, train=train, loss={"alpha": {"weight": 0.1}, "depth": {"weight": 0.1}}
    )


def test_what_is_outside_the_box_is_learnt_saved_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    path = toy_with(tmp_path, **FAR)
    whole = trainer_of(path)
    whole.run(show_progress=False)
    views, white, model = load_teacher(whole.config).views, (1.0, 1.0, 1.0), whole.model
    renderers = model.renderer(), Model(model.student, model.grid, model.settings).renderer()
    frames = range(0, 17, 4)
    expected = torch.stack([views.image(frame, white) for frame in frames])
    pictures = [torch.stack([one.render(views.cameras, i, white).rgb for i in frames]) for one in renderers]
    error, without, blank = ((picture - expected).square().mean() for picture in (*pictures, torch.ones(())))
    assert error < 0.3 * blank and error < 0.7 * without

    checkpoint = whole.folder.checkpoint_path(30)
    resumed = trainer_of(path, resume=checkpoint)
    resumed.run(show_progress=False)
    for name, value in whole.model.far_field.state_dict().items():
        assert torch.equal(value, resumed.model.far_field.state_dict()[name]), name
    for name, value in whole.model.student.state_dict().items():
        assert torch.equal(value, resumed.model.student.state_dict()[name]), name

    # The checkpoint knows of it, whatever the config says.
    config = load_config(path, ["far_field.kind=none"], tmp_path)
    restored = restore_model(config, load_checkpoint(checkpoint, CPU), checkpoint, CPU)
    assert restored.far_field.settings == whole.config.far_field
    assert restored.parameter_count() == whole.model.student.parameter_count() + restored.far_field.parameter_count()


def test_what_cannot_hold_a_far_field_says_so(tmp_path: Path, capsys) -> None:
    path = toy_with(tmp_path, **FAR)
    trainer = trainer_of(path, "train.max_steps=1")
    trainer.run(show_progress=False)
    given = ["--config", str(path), "--assets", str(tmp_path), "--output", str(tmp_path), "--target-mib", "1"]
    assert compress(given) == 2
    assert "far_field: found a student with a far field, expected one without" in capsys.readouterr().err
    refusal = graph_refusal(trainer.config, asynchronous=True)
    assert refusal == "far_field.kind asks for another number of samples in each step"


def test_kilo_uniform_keeps_its_grid_inside(tmp_path: Path) -> None:
    trainer = trainer_of(toy_with(tmp_path, **FAR), "student={kind: kilo_uniform, grid: [2, 2, 2], hidden_width: 16}")
    before = [next(field.parameters()).clone() for field in (trainer.model.student, trainer.model.far_field.field)]
    trainer.take_step()
    for field, old in zip((trainer.model.student, trainer.model.far_field.field), before, strict=True):
        assert not torch.equal(next(field.parameters()), old)


def test_steps_that_do_not_wait_for_the_device_learn_it_too(tmp_path: Path) -> None:
    trainer = trainer_of(toy_with(tmp_path, **FAR), asynchronous=True)
    before = trainer.model.far_field.field.table.clone()
    result = trainer.take_step()
    trainer.step.settle(1)
    assert result.rendered.far_samples > 0
    assert not torch.equal(before, trainer.model.far_field.field.table)


def test_without_one_a_box_that_holds_half_is_refused_and_nothing_else_changes(tmp_path: Path) -> None:
    config = load_config(toy_with(tmp_path, **FAR | {"kind": "none"}), [], tmp_path)
    with pytest.raises(InputError, match="of the opacity of teacher.ply lies"):
        load_teacher(config)
    config = load_config(toy_with(tmp_path), [], tmp_path)
    assert build_model(config, load_teacher(config), CPU).far_field is None
