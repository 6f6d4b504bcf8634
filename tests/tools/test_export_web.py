"""The command that makes a page of a trained student."""

import shutil
from dataclasses import replace

import pytest

from distill.model.checkpoint import box_state, save_checkpoint, student_state
from machine.run_folder import RunFolder
from settings.loading import load_config
from teacher.sources import source_of
from tests.distill.web.web_students import BOX, STUDENTS, model_of
from tests.toy_configs import BRICKS
from tests.toy_scene import turned_over
from tools.export_web import main


@pytest.fixture
def run(tmp_path):
    """The folder of a run of the brick scene, its config and its checkpoint."""
    path = tmp_path / "toy.yaml"
    path.write_text(BRICKS)
    model, config = model_of(STUDENTS["deferred networks"]), load_config(path)
    occupancy = {"resolution": 22, "step": 0.05, "state": model.grid.state_dict()}
    state = {"step": 7, "student": student_state(model.student), "box": box_state(BOX), "occupancy": occupancy}
    folder = RunFolder(config, tmp_path)
    folder.create()
    save_checkpoint(folder.checkpoint_path(7), {**state, "config": BRICKS})
    return folder


def arguments(run, *more):
    return ["--config", f"{run.results.parents[2]}/toy.yaml", "--output", f"{run.results.parents[2]}", *more]


def test_a_page_holds_the_student_and_its_figures(run, capsys, caplog):
    assert main([str(run.results)]) == 0
    page = run.results / "step_000007.html"
    assert capsys.readouterr().out.startswith(f"{page}: 0.0") and "the page has no figures" in caplog.text
    caplog.clear()
    run.eval_csv(7).write_text("step,split,reference,frames,psnr\n7,holdout,teacher,8,31.25\n")
    assert main(arguments(run, "--file", str(run.results / "a.html"))) == 0
    text = (run.results / "a.html").read_text(encoding="utf-8")
    assert "<dt>Pixels</dt><dd>one ray each" in text
    assert not caplog.text and "<td>31.25</td>" in text and "<h1>toy / first</h1>" in text


def test_the_page_of_an_earlier_run_s_checkpoint_stands_beside_the_run_s(run):
    earlier = run.checkpoints / "earlier" / "1" / "step_000007.pth"
    earlier.parent.mkdir(parents=True)
    shutil.copy(run.checkpoint_path(7), earlier)
    assert main([str(earlier)]) == 0
    assert [path.name for path in run.results.glob("*.html")] == ["step_000007_earlier-1.html"]


def test_where_cameras_do_not_agree_it_has_to_be_said_what_is_up(run, monkeypatch, capsys):
    source = source_of(load_config(run.results.parents[2] / "toy.yaml"))
    rolled = replace(frames := source.frames()[0], cameras=turned_over(frames.cameras))
    monkeypatch.setattr(type(source), "frames", lambda *_: (rolled, "rolled.json"))
    assert main(arguments(run)) == 2
    assert "rolled.json: cameras: found cameras with no up direction in common" in (said := capsys.readouterr().err)
    assert "--up" in said and main(arguments(run, "--up=z")) == 0


@pytest.mark.parametrize(("rays", "said"), [(2, "2 × 2 rays each, as in"), (4, "2 × 2 rays each, not of 4 × 4 as in")])
def test_a_page_says_what_its_pixels_are(run, rays, said):
    assert main(arguments(run, "--set", f"render.supersample={rays}")) == 0
    text = (run.results / "step_000007.html").read_text(encoding="utf-8")
    assert f"<dt>Pixels</dt><dd>the mean of {said} the program" in text
    assert "as in training, whose pictures are 64 wide<" in text
    assert '"width":64' in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--checkpoint", "{root}/none.pth"], "no such file"),
        (["--checkpoint", "{root}/toy.yaml"], "toy.yaml"),
        (
            ["--file", "{root}/point_cloud.ply"],
            "--file: file: found point_cloud.ply, expected a name that ends in .html",
        ),
        (["--file", "{root}/toy.yaml/a.html"], "page: found"),
        (["--set", "run=other"], "expected a checkpoint"),
    ],
)
def test_what_cannot_be_is_one_message(run, more, said, capsys):
    more = [text.format(root=run.results.parents[2]) for text in more]
    assert main(arguments(run, *more)) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("error: ") == 1
