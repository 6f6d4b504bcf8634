"""Pages of students: in a real browser they show what the program renders, and ask for nothing."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace

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
START = StartView((3.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 2.0), (1.2, 1.2), 200, BACKGROUND)
# Bytes of a picture of a student that comes with the call, by the page's own renderer.
OTHER = """async ({textures, shader, content}, view, size) => {
  document.getElementById("content").textContent = content;
  const canvas = document.createElement("canvas");
  return [...new StudentRenderer(canvas, shader, textures, await readContent()).picture(view, size, size, 1)];
}"""


# A picture that is soon drawn.
LOW = """async () => {
  const { canvas } = await ready;
  canvas.style.height = "80px";
  while (canvas.height !== 80) await new Promise(requestAnimationFrame);
}"""
# Of the canvas at rest after a zoom, whose coarse picture has been drawn in full size: what is said of it, and the
# largest difference from a whole picture of so many rays.
AT_REST = """async (factor, rays) => {
  const viewer = await ready, { gl, canvas } = viewer.renderer;
  viewer.scale = 1;
  viewer.camera.zoom(factor);
  viewer.moved();
  while (viewer.running) await new Promise(requestAnimationFrame);
  const { width, height } = canvas, shown = new Uint8Array(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, shown);
  const view = { pose: viewer.camera.pose(), lens: lensFor(width, height), background: BACKGROUNDS.run };
  const whole = viewer.renderer.picture(view, width, height, rays);
  let most = 0;
  for (let row = 0, place = 0; row < height; row++)
    for (let at = 4 * width * (height - 1 - row), end = at + 4 * width; at < end; at++, place++)
      most = Math.max(most, Math.abs(shown[at] - whole[place]));
  return [document.getElementById("status").textContent, most];
}"""


def _supersampled(scale: int):
    """A model whose pixels are means of scale x scale rays."""
    model = model_of(STUDENTS["hash grid"])
    return replace(model, settings=replace(model.settings, supersample=scale))


def _page(rows=(), facts=None, scale=1) -> str:
    model = _supersampled(scale)
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


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")
def test_in_a_browser_a_supersampled_students_pixels_are_means_at_rest(tmp_path) -> None:
    file = tmp_path / "page.html"
    file.write_text(_page(scale=2), encoding="utf-8")
    camera = camera_at((1.6, -1.8, 1.1))
    view = _view(camera)
    with Page(BROWSER, file, tmp_path / "browser", SOFTWARE) as page:
        page.evaluate("ready.then(() => 1)")
        size = f"{camera.width}, {camera.height}"
        means = page.evaluate(f"render({json.dumps(view['pose'])}, {size}, {json.dumps(view['lens'])})")
        call = f"viewer.renderer.picture({json.dumps(view)}, {size}, 1)"
        one_ray = page.evaluate(f"ready.then((viewer) => [...{call}])")
        assert _error(means, _supersampled(2), camera) > 50 > 45 > _error(one_ray, _supersampled(2), camera)

        page.evaluate(f"({LOW})()")
        # At the start, nearer than where the student has finer pixels than it learnt, and back.
        for factor, rays in ((1, 2), (0.1, 1), (10, 2)):
            said, difference = page.evaluate(f"({AT_REST})({factor}, {rays})")
            assert ("of 2 × 2 rays in" in said) == (rays == 2), said
            assert difference <= 1, (factor, rays)
        page.evaluate("ready.then((viewer) => { viewer.renderer.widest = 40; })")  # a device that has no finer pictures
        assert page.evaluate(f"ready.then((viewer) => [...{call.replace(', 1)', ', 2)')}])") == one_ray
        assert page.evaluate(f"({AT_REST})(1, 1)")[1] == 0
        assert [text for text in page.errors if "GPU stall due to ReadPixels" not in text] == []


@pytest.mark.parametrize(("scale", "rays"), [(1, 1), (2, 2), (4, 2)])
def test_a_page_knows_how_many_rays_its_pixels_are_means_of_and_where_one_is_as_good(scale, rays) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', _page(scale=scale)).group(1))
    assert (data["rays"], data["fine"], data["start"]["width"]) == (rays, 3, 200)


def test_the_start_is_seen_from_the_cameras_with_their_up() -> None:
    cameras = camera_at((0.0, -2.0, 1.0))
    start = StartView.of(cameras, (0.0, 0.0, 0.0), 100, BACKGROUND)
    assert start.eye == pytest.approx((0.0, -2.0, 1.0), abs=0.3)  # what is up is not quite z
    assert torch.tensor(start.eye).norm().item() == pytest.approx(5**0.5, rel=1e-4)
    up = torch.nn.functional.normalize(torch.tensor(start.up), dim=0)
    assert torch.allclose(up, cameras.c2w[0, :3, 1], atol=1e-4)
    assert start.focal == pytest.approx((1.1, 1.0)) and start.width == 100


def test_figures_are_those_of_the_evaluation_and_text_stays_text() -> None:
    measured = {"split": "holdout", "reference": "ground_truth", "frames": "8", "psnr": "36.517", "verdict": "far: x"}
    text = _page([measured, {"split": "train", "psnr": "broken"}], {"<Kind>": EVIL})
    cells = re.findall(r"<td>(.*?)</td>", text)
    assert cells[:8] == ["holdout", "ground truth", "36.52", "-", "-", "-", "8", "far"]
    assert cells[8:12] == ["train", "", "-", "-"]
    assert EVIL not in text and "<Kind>" not in text
    assert "It was not measured" in _page()
    assert BOX.lower[0] == -1.0 and "#define LOWER vec3(-1.0, -0.8, -0.6)" in text
