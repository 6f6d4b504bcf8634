"""What a run's feature supervision asks of its steps, on the toy scene; and that it makes training faster there."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distill.losses.feature_supervision import FeatureSupervision, channels_of, load_volume, supervise
from distill.rendering.renderer import RenderedRays, SampledField
from distill.training.trainer import Trainer
from kernels.compositing.compositing import Composite
from kernels.gaussians.sparse_volume import VolumeSample
from scene.rays import SceneBox
from settings.errors import InputError
from settings.loading import load_config
from teacher.features.channels import select_channels
from teacher.features.volume import ChannelStatistics, build_volume
from teacher.features.volume_files import write_features
from teacher.gaussians import Gaussians
from teacher.sources import load_teacher
from tests.program import csv_rows
from tests.toy_scene import scale_toy_cameras, write_toy_scene
from tests.toy_training import CPU, trainer_of
from tests.triton_device import DEVICE, needs_triton

INSIDE = ("loss.density.weight=0.01", "loss.color.weight=0.3", "features.resolution=16")
ALIGNED = (*INSIDE, "loss.feature_l2.weight=0.01", "loss.feature_cos.weight=0.01", "features.channels=[sh_dc,opacity]")
UNIT_BOX = SceneBox((0, 0, 0), (1, 1, 1))  # densities in it are in the world's own unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return toy(tmp_path)


@pytest.fixture(scope="module")
def aligned(tmp_path_factory) -> Trainer:
    """After a run with all of these losses."""
    trainer = trainer_of(toy(tmp_path_factory.mktemp("aligned")), *ALIGNED)
    trainer.run(show_progress=False)
    return trainer


def toy(folder: Path) -> Path:
    return write_toy_scene(folder, train={"checkpoint_steps": [30], "log_every": 5, "samples_per_step": 1024})


def rows_of(trainer: Trainer) -> list[dict[str, str]]:
    return csv_rows(trainer.folder.training_csv)


def test_without_such_a_loss_there_is_no_supervision(path) -> None:
    config = load_config(path, [], path.parent)
    assert supervise(config, None, None, CPU) is None


def test_terms_are_logged_and_leave_when_their_weight_does(aligned) -> None:
    rows = rows_of(aligned)
    for name in ("loss_density", "loss_color", "loss_feature_l2", "loss_feature_cos", "feature_valid_fraction"):
        values = [row[name] for row in rows]
        assert all(value != "" for value in values[:6]), name
        assert all(value == "" for value in values[6:]), name
    ratios = [name for name in rows[0] if name.startswith("grad_ratio_") and rows[0][name]]
    assert {"grad_ratio_density", "grad_ratio_color", "grad_ratio_feature_l2", "grad_ratio_feature_cos"} == set(ratios)
    assert all(float(rows[0][name]) > 0 for name in ratios)
    assert float(rows[5]["loss_density"]) < float(rows[0]["loss_density"])


def test_samples_count_by_what_the_teacher_knows_of_them_and_rays_show(path) -> None:
    """Four samples: two that the teacher has something at, padding, and one in empty space."""
    losses = [f"loss.{name}.weight=1.0" for name in ("density", "color", "feature_l2")]
    config = load_config(path, [*losses, "features.channels=[opacity]"], path.parent)
    half, sure = math.log(2.0), torch.tensor([0.5, 0.25, 1.0, 0.0])
    features = torch.zeros(4, 49)
    features[:, 48] = 1.0  # opacity: with harmonics of 0 the teacher is grey, 0.5
    teacher = VolumeSample(features, torch.tensor([2 * half, 4 * half, 9.0, 0.0]), sure)
    volume = SimpleNamespace(
        channels=select_channels(("sh", "opacity")),
        box=UNIT_BOX,
        cell_size=0.5,
        query=lambda *_: teacher,
        selected=lambda _: SimpleNamespace(statistics=ChannelStatistics(torch.tensor([0.5]), torch.tensor([0.25]))),
    )
    rgb = torch.tensor([0.7, 0.9, 1.0, 1.0])[:, None].expand(4, 3)
    density = torch.tensor([2 * half * math.e**2, 4 * half, 7.0, 0.05])
    taps, real = {"geo": torch.tensor([[3.0], [5.0], [9.0], [9.0]])}, torch.tensor([True, True, False, True])
    field = SampledField(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), density, rgb, taps, real)
    shown = Composite(torch.zeros(1, 3), torch.ones(1), torch.ones(1), torch.tensor([0.4, 0.8, 0.7, 0.1]))
    batch = SimpleNamespace(rays=SimpleNamespace(directions=torch.tensor([[0.0, 0.0, 1.0]])))
    supervision = FeatureSupervision(config, volume, lambda activations: activations)
    found = supervision.compare(RenderedRays(shown, field), batch, 0.0, torch.Generator())
    # Logarithms differ by 2, 0 and 0, both densities of empty space being at the range's lower end.
    assert found.terms["density"].item() == pytest.approx(4 / 3) and found.counts["density"] == 3
    # A cell of the first is half opaque, one of the second three quarters; errors are 0.2 and 0.4.
    assert found.terms["color"].item() == pytest.approx((0.5 * 0.04 + 0.75 * 0.16) / 1.25)
    assert found.counts["color"].item() == pytest.approx(1.25)
    # An opacity of 1 is two deviations above the mean; confidence times weight is 0.2 for either, errors are 1 and 3.
    assert found.terms["feature_l2"].item() == pytest.approx((0.2 * 1 + 0.2 * 9) / 0.4)
    assert found.counts["feature_l2"].item() == pytest.approx(0.4)
    assert found.valid_fraction.item() == pytest.approx(2 / 3)


def test_a_step_looks_at_every_kth_sample_from_a_random_one_and_at_no_more_than_asked_for(path) -> None:
    config = load_config(path, ["loss.density.weight=1.0", "features.points_per_step=3"], path.parent)
    asked = set()

    def query(positions, _):
        asked.add(tuple(positions[:, 0].tolist()))
        return VolumeSample(torch.zeros(len(positions), 1), torch.ones(len(positions)), torch.ones(len(positions)))

    volume = SimpleNamespace(channels=("opacity",), box=UNIT_BOX, cell_size=0.5, query=query)
    places, ones = torch.arange(7.0)[:, None].expand(7, 3), torch.ones(7)
    field = SampledField(places, torch.zeros(7, dtype=torch.int64), ones, torch.zeros(7, 3), {})
    rendered = RenderedRays(Composite(torch.zeros(1, 3), ones[:1], ones[:1], ones), field)
    supervision, generator = FeatureSupervision(config, volume, None), torch.Generator().manual_seed(0)
    for _ in range(20):
        supervision.compare(rendered, None, 0.0, generator)
    assert asked == {(0.0, 3.0, 6.0), (1.0, 4.0), (2.0, 5.0)}


@pytest.mark.parametrize("tap", ["encoding", "hidden", "geo", "sample"])
def test_every_tap_can_be_aligned(path, tap) -> None:
    overrides = ["loss.feature_l2.weight=0.1", "features.resolution=16", f"features.tap={tap}", "train.max_steps=10"]
    trainer = trainer_of(path, *overrides)
    trainer.run(show_progress=False)
    assert float(rows_of(trainer)[0]["grad_ratio_feature_l2"]) > 0


def test_the_last_half_of_a_run_is_rays_alone(path) -> None:
    trainer = trainer_of(path, *ALIGNED)
    assert trainer.features.taps(0.49) == ("geo",) and trainer.features.weights(0.49)
    assert trainer.features.taps(0.5) == () and trainer.features.weights(0.5) == {}


def test_a_resumed_run_equals_the_uninterrupted_one(aligned, path) -> None:
    resumed = trainer_of(path, *ALIGNED, resume=aligned.folder.checkpoint_path(30))
    resumed.run(show_progress=False)
    for name, value in aligned.model.student.state_dict().items():
        assert torch.equal(value, resumed.model.student.state_dict()[name]), name
    for name, value in aligned.features.projector.state_dict().items():
        assert torch.equal(value, resumed.features.projector.state_dict()[name]), name


def test_a_checkpoint_of_rays_alone_has_no_projector_to_go_on_with(path) -> None:
    trainer = trainer_of(path)
    trainer.take_step()
    trainer.save()
    with pytest.raises(InputError, match="projector"):
        trainer_of(path, *ALIGNED, resume=trainer.folder.checkpoint_path(1))


def test_a_probe_leaves_the_projector_alone(path) -> None:
    trainer = trainer_of(path, *ALIGNED)
    before = {name: value.clone() for name, value in trainer.features.projector.state_dict().items()}
    trainer.probe(2)
    assert all(torch.equal(value, before[name]) for name, value in trainer.features.projector.state_dict().items())


@pytest.mark.parametrize("term", ["density", "color", "feature_l2", "feature_cos"])
def test_each_term_alone_teaches_the_student(path, term) -> None:
    alone = ("loss.rgb.weight=0.0", f"loss.{term}.weight=1.0", f"loss.{term}.decay_end=1.0", "loss.depth.weight=0.0")
    small = ("features.resolution=16", "features.channels=[sh_dc,opacity]", "train.max_steps=60")
    trainer = trainer_of(path, *alone, *small)
    trainer.run(show_progress=False)
    losses = [float(row[f"loss_{term}"]) for row in rows_of(trainer)[:-1]]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.parametrize("factor", [4096.0, 1 / 512])
def test_terms_are_the_same_in_a_world_of_any_scale(tmp_path, factor) -> None:
    overrides = *ALIGNED, "features.tap=sample", "teacher.kind=gaussians", "teacher.outputs=null"
    usual = trainer_of(write_toy_scene(tmp_path / "usual"), *overrides).take_step().terms
    path = write_toy_scene(tmp_path / "other")
    scale_toy_cameras(path.parent, factor)
    other = trainer_of(path, *overrides, f"teacher.scale={factor}").take_step().terms
    assert usual["density"] > 0.1
    for name, term in usual.items():
        assert other[name].item() == pytest.approx(term.item(), rel=1e-3), name


def test_a_volume_has_the_channels_that_the_losses_need(path) -> None:
    def needed(*overrides: str) -> tuple[str, ...]:
        return channels_of(load_config(path, [*overrides], path.parent))

    assert needed("loss.density.weight=1.0") == ("opacity",)
    assert len(needed("loss.color.weight=1.0")) == 49
    assert needed("loss.feature_l2.weight=1.0", "features.channels=[log_scale]") == tuple(
        f"log_scale_{axis}" for axis in range(3)
    )


@pytest.mark.parametrize(
    ("overrides", "measured"),
    [
        (["loss.density.weight=1.0"], False),
        (["loss.feature_l2.weight=1.0"], True),
    ],
)
def test_confidence_is_measured_where_it_is_asked_for(path, overrides, measured) -> None:
    config = load_config(path, [*overrides, "features.resolution=16"], path.parent)
    teacher = load_teacher(config)
    confidence = load_volume(config, teacher.gaussians, teacher.box).table[1:, 1]
    assert bool(((confidence > 0) & (confidence < 1)).any()) == measured


def test_a_file_gives_the_same_volume(path) -> None:
    config = load_config(path, [*INSIDE, "features.file=features.npz"], path.parent)
    teacher = load_teacher(config)
    volume = build_volume(teacher.gaussians, teacher.box, 16)
    assert config.features.file == path.parent / "features.npz"  # under the assets root, as every asset
    write_features(config.features.file, volume, teacher.gaussians)
    read = load_volume(config, teacher.gaussians, teacher.box)
    points = torch.rand(50, 3) - 0.5
    assert torch.equal(read.query(points).density, volume.query(points).density)


def test_features_of_another_scene_are_refused(path) -> None:
    config = load_config(path, [*INSIDE, "features.file=features.npz"], path.parent)
    teacher = load_teacher(config)
    write_features(config.features.file, build_volume(teacher.gaussians, teacher.box, 16), teacher.gaussians)
    fields = {name: getattr(teacher.gaussians, name) for name in teacher.gaussians.__dataclass_fields__}
    moved = Gaussians(**fields | {"means": fields["means"] + 0.01})
    with pytest.raises(InputError, match="fingerprint"):
        load_volume(config, moved, teacher.box)


def test_nothing_is_asked_where_there_are_no_samples(path) -> None:
    trainer = trainer_of(path, *INSIDE)
    rendered = type("Rendered", (), {"field": type("Field", (), {"density": torch.zeros(0)})()})()
    found = trainer.features.compare(rendered, None, 0.0, torch.Generator())
    assert found.terms == {} and found.total() == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["features.channels=[sh_99]", "loss.feature_l2.weight=1.0"], "sh_99"),
        (["loss.density.weight=1.0", "teacher.ply=null"], "teacher.ply"),
        (["loss.density.lowest=5.0", "loss.density.highest=1.0"], "lowest"),
        (["loss.color.decay_start=0.6"], "decay_end"),
    ],
)
def test_bad_settings_are_refused(path, override, message) -> None:
    with pytest.raises(InputError, match=message):
        trainer_of(path, *override)


def test_a_supervision_is_built_of_its_volume_alone(path) -> None:
    config = load_config(path, [*INSIDE], path.parent)
    teacher = load_teacher(config)
    supervision = FeatureSupervision(config, load_volume(config, teacher.gaussians, teacher.box), None)
    assert supervision.parameters() == [] and supervision.state()["projector"] is None


@needs_triton
@pytest.mark.parametrize(
    "student",
    ["{levels: 2, hidden_width: 16}", "{kind: kilo_uniform, grid: [2, 1, 1], frequencies: 1, hidden_width: 16}"],
)
def test_a_whole_run_can_ask_for_triton(path, student) -> None:
    # Kernels without a Triton twin, such as the volume's and the tapped MLPs', go on with another.
    small = ("train.max_steps=2", "train.samples_per_step=128", "train.rays_per_step=32", "occupancy.resolution=8")
    where = (f"device={DEVICE.type}", "kernels=triton")
    overrides = (*where, "features.resolution=8", "loss.feature_l2.weight=0.1", *small)
    trainer = trainer_of(path, *overrides, f"student={student}", device=DEVICE)
    trainer.run(show_progress=False)
    assert trainer.progress.step == 2
