"""Pages of students: in a real browser they show what the program renders, and ask for nothing."""

from __future__ import annotations

import base64
import json
import re

import pytest
import torch

from distill.web.packing import packed_student
from distill.web.page import StartView, web_page
from tests.distill.web.web_students import BOX, STUDENTS, camera_at, model_of
from tests.headless_browser import Page, find_browser

BROWSER = find_browser()
SOFTWARE = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--window-size=360,360")
BACKGROUND = (1.0, 0.5, 0.0)
EVIL = "</script><script>window.hacked=1</script>"
START = StartView((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 2.0), (1.2, 1.2), BACKGROUND)
AT_REST = "ready.then(async (viewer) => { while (viewer.running) await new Promise(requestAnimationFrame); })"
# Bytes of a picture of a student that comes with the call, by the page's own renderer.
OTHER = """async ({textures, shader, content}, view, size) => {
  document.getElementById("content").textContent = content;
  const canvas = document.createElement("canvas");
  return [...new StudentRenderer(canvas, shader, textures, await readContent()).picture(view, size, size)];
}"""


def _page(rows=(), facts=None) -> str:
    model = model_of(STUDENTS["hash grid"])
    return web_page(model, "x.pth", f"toy {EVIL}", START, facts or {}, rows)


def _error(pixels, model, camera) -> float:
    """PSNR, dB, of a browser's picture against the program's."""
    want = model.renderer().render(camera, 0, BACKGROUND).rgb
    assert want.std() > 0.1  # there is something to see
    got = torch.tensor(pixels).view(camera.height, camera.width, 4)[..., :3] / 255
    return -10 * torch.log10((got - want).square().mean()).item()


def _view(camera) -> dict:
    lens = {name: getattr(camera, name).item() for name in ("fx", "fy", "cx", "cy")}
    return {"pose": camera.c2w[0].tolist(), "lens": lens, "background": [*BACKGROUND, 1]}


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")
def test_in_a_browser_every_student_looks_as_the_program_renders_it(tmp_path) -> None:
    file = tmp_path / "page.html"
    file.write_text(_page(), encoding="utf-8")
    camera = camera_at((1.6, -1.8, 1.1))
    pose, lens = (json.dumps(_view(camera)[name]) for name in ("pose", "lens"))
    with Page(BROWSER, file, tmp_path / "browser", SOFTWARE) as page:
        page.evaluate("ready.then(() => 1)")
        pixels = page.evaluate(f"render({pose}, {camera.width}, {camera.height}, {lens})")
        assert _error(pixels, model_of(STUDENTS["hash grid"]), camera) > 50
        for name, settings in list(STUDENTS.items())[1:]:
            model = model_of(settings, seed=1)
            packed = packed_student(model, "x.pth")
            content = base64.b64encode(packed.content).decode()
            student = json.dumps({"textures": packed.textures, "shader": packed.shader, "content": content})
            inside = camera_at((0.3, -0.2, 0.4))
            pixels = page.evaluate(f"({OTHER})({student}, {json.dumps(_view(inside))}, {inside.width})")
            assert _error(pixels, model, inside) > 40, name

        status = "document.getElementById('status').textContent"
        page.evaluate(
            "ready.then(async (viewer) => { while (viewer.running) await new Promise(requestAnimationFrame); })"
        )
        whole = page.evaluate(status)
        assert re.fullmatch(r"\d+ × \d+ pixels in .*", whole)
        before = page.evaluate("ready.then((viewer) => viewer.camera.pose())")
        page.evaluate("document.getElementById('picture').focus()")
        page.press("ArrowRight")
        assert page.evaluate("ready.then((viewer) => viewer.camera.pose())") != before
        page.click("#reset")
        assert page.evaluate("ready.then((viewer) => viewer.camera.pose())") == before
        assert page.evaluate("window.hacked") is None
        assert [text for text in page.errors if "GPU stall due to ReadPixels" not in text] == []
        assert [url for url in page.requests if not url.startswith(("data:", file.as_uri()))] == []


def test_the_start_is_seen_from_the_cameras_with_their_up() -> None:
    cameras = camera_at((0.0, -2.0, 1.0))
    start = StartView.of(cameras, (0.0, 0.0, 0.0), BACKGROUND)
    assert start.eye == pytest.approx((0.0, -2.0, 1.0), abs=0.3)  # what is up is not quite z
    assert torch.tensor(start.eye).norm().item() == pytest.approx(5**0.5, rel=1e-4)
    up = torch.nn.functional.normalize(torch.tensor(start.up), dim=0)
    assert torch.allclose(up, cameras.c2w[0, :3, 1], atol=1e-4)
    assert start.focal == pytest.approx((1.1, 1.0))


def test_figures_are_those_of_the_evaluation_and_text_stays_text() -> None:
    measured = {"split": "holdout", "reference": "ground_truth", "frames": "8", "psnr": "36.517", "verdict": "far: x"}
    text = _page([measured, {"split": "train", "psnr": "broken"}], {"<Kind>": EVIL})
    cells = re.findall(r"<td>(.*?)</td>", text)
    assert cells[:8] == ["holdout", "ground truth", "36.52", "-", "-", "-", "8", "far"]
    assert cells[8:12] == ["train", "", "-", "-"]
    assert EVIL not in text and "<Kind>" not in text
    assert "It was not measured" in _page()
    assert BOX.lower[0] == -1.0 and "#define LOWER vec3(-1.0, -0.8, -0.6)" in text
