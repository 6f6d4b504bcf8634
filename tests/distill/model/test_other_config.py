from distill.model.other_config import evaluated_as, note_other_split
from settings.config import Config


def test_other_frames_held_out_are_named_in_the_tag_and_warned_of(tmp_path, caplog):
    def config(tag: str = "", **data) -> Config:
        return Config(scene="test", run="first", teacher={"kind": "bricks"}, data={"resolution": 64} | data, tag=tag)

    path = tmp_path / "step_000007.pth"
    own, same = config(), config("mine", resolution=32)
    note_other_split(same, path, own)
    assert not caplog.records and evaluated_as(same, path, own).tag == "mine_32px"
    other = config(holdout_every=4, frames="2:20")
    assert evaluated_as(other, path, own).tag == "holdout-every-4_frames-2-20"
    note_other_split(other, path, own)
    said = caplog.text.partition("so some that are called held out it may have seen: ")[2]
    assert said.startswith('data.holdout_every 4, there 8; data.frames "2:20", there null')
