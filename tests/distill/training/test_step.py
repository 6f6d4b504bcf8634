"""What ends a step that is looked at before it is taken, and what steps do not depend on; what they learn is in
test_trainer.
"""

from __future__ import annotations

import pytest
import torch

from distill.losses.pictures import total_loss
from settings.errors import TrainingDiverged
from tests.toy_scene import scale_toy_cameras, write_toy_scene
from tests.toy_training import losses_of, trainer_of


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_term_ends_training_before_its_step_is_taken(tmp_path, monkeypatch, value) -> None:
    trainer = trainer_of(write_toy_scene(tmp_path), "kernels=torch")
    trainer.take_step()

    def broken(*arguments):
        loss, terms, depth = total_loss(*arguments)
        return loss * value, terms | {"rgb": terms["rgb"] * value}, depth

    monkeypatch.setattr("distill.training.step.total_loss", broken)
    before = {name: weights.clone() for name, weights in trainer.model.student.state_dict().items()}
    with pytest.raises(TrainingDiverged, match=f"step 2: loss term 'rgb' is {value}; start anew with a lower train.lr"):
        trainer.take_step()
    assert all(torch.equal(weights, before[name]) for name, weights in trainer.model.student.state_dict().items())
    assert trainer.progress.step == 1


@pytest.mark.parametrize("factor", [64.0, 1 / 64])
def test_a_scene_is_learnt_alike_in_whatever_units(tmp_path, factor) -> None:
    """In the small world the cameras, 2 units from the block in the usual one, are nearer than 0.05."""
    overrides = "teacher.kind=gaussians", "teacher.outputs=null", "render.sampling=teacher", "loss.depth.weight=0.1"
    usual = losses_of(trainer_of(write_toy_scene(tmp_path / "usual"), *overrides), 20)
    path = write_toy_scene(tmp_path / "other")
    scale_toy_cameras(path.parent, factor)
    other = trainer_of(path, *overrides, f"teacher.scale={factor}")
    assert losses_of(other, 20) == pytest.approx(usual, rel=1e-2)
