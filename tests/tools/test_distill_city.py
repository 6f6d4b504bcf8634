"""A city whose blocks are all distilled: what is left to do with it."""

from tests.toy_city import CONFIG, noise_views, toy_city
from tools.distill_city import main


def test_the_whole_teacher_is_drawn_once_for_training_together_and_for_measuring(
    tmp_path, look_at, monkeypatch, capsys
):
    folder = tmp_path / "results" / "toy" / "city"
    folder.mkdir(parents=True)
    toy_city(folder, (2, 1, 1), config=f"{CONFIG}city: {{joint_steps: 1}}\n")
    teacher, drawn = noise_views(look_at([(2.2, 1.4, 1.1), (-1.8, 1.9, 0.7)], width=16, height=12)), []

    def load(config):
        drawn.append(config.run)
        return teacher

    monkeypatch.setattr("tools.distill_city.load_teacher", load)
    monkeypatch.setattr("tools.distill_city.blocks_table", lambda manifest: "")  # of runs that are not there
    assert main(["--config", str(folder / "city.yaml"), "--output", str(tmp_path), "--resume"]) == 0
    assert drawn == ["city"] and "on 1 held-out frame" in capsys.readouterr().out
