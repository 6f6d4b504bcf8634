"""Reading a COLMAP model, whole, cut off and foreign."""

import numpy as np
import pytest

from scene.formats.colmap_model import points_file, read_model, read_points
from scene.formats.colmap_records import CAMERA_MODELS, ColmapCamera, ColmapImage
from scene.formats.colmap_text import write_model as write_as_text
from settings.errors import InputError
from tests.scene.formats import colmap_models
from tests.scene.formats.colmap_models import PINHOLE, images
from tests.toy_scene import ring_of_cameras

WRITERS = {"bin": colmap_models.write_binary, "txt": colmap_models.write_text}


@pytest.fixture(params=["bin", "txt"])
def write_model(request, tmp_path):
    """Writes a model of one kind; returns its folder."""
    return lambda *parts: WRITERS[request.param](tmp_path / "sparse" / "0", *parts)


def test_images_come_in_the_order_of_their_names(write_model):
    model = read_model(write_model([PINHOLE], images("b.jpg", "a 1.jpg", "sub/ü.jpg")))
    assert [image.name for image in model.images] == ["a 1.jpg", "b.jpg", "sub/ü.jpg"]
    assert model.images[0].translation == (0.1, -0.2, 4.0) and model.images[0].id == 8
    assert model.cameras == {1: PINHOLE} and model.camera_of(model.images[2]) == PINHOLE


def test_a_pose_becomes_camera_to_world_in_opengl_axes(write_model):
    pose = read_model(write_model([PINHOLE], images("a.jpg"))).camera_to_world()[0]
    # The camera's x, y, z are the world's z, x, y; it stands at -R^T t, looks along its z, and its y points down.
    assert pose[:3, 0].tolist() == [0, 0, 1] and pose[:3, 1].tolist() == [-1, 0, 0]
    assert (
        pose[:3, 2].tolist() == [0, -1, 0] and pose[:3, 3].tolist() == [0.2, -4, 0] and pose[3].tolist() == [0, 0, 0, 1]
    )


def test_every_camera_model_is_read(write_model):
    cameras = [
        ColmapCamera(key, model, 16, 12, tuple(map(float, range(1, count + 1))))
        for key, (model, (_, count)) in enumerate(CAMERA_MODELS.items())
    ]
    assert list(read_model(write_model(cameras, images("a.jpg"))).cameras.values()) == cameras


def test_points_are_read(write_model):
    points = read_points(points_file(write_model([PINHOLE], images("a.jpg"), 3)))
    assert points.positions.tolist() == [[0.25, -1, 0.5], [1.25, -1, 0.5], [2.25, -1, 0.5]]
    assert points.colors.tolist() == [[0, 128, 255], [1, 128, 255], [2, 128, 255]] and points.colors.dtype == np.uint8


def test_binary_and_text_beside_it_must_be_one_model(tmp_path):
    for write in WRITERS.values():
        write(tmp_path, [PINHOLE], images("a.jpg", "b.jpg"))
    assert read_model(tmp_path).kind == ".bin"
    moved = images("a.jpg", "b.jpg")
    moved[1] = moved[1]._replace(translation=(9.0, 0.0, 0.0))
    for other, message in (
        (([PINHOLE], images("a.jpg")), "images.bin with 2 images beside images.txt with 1"),
        (([PINHOLE], images("a.jpg", "c.jpg")), "'b.jpg' in images.bin where images.txt has 'c.jpg'"),
        (([PINHOLE], moved), "another pose or camera of 'b.jpg'"),
        (([PINHOLE._replace(width=32)], images("a.jpg", "b.jpg")), "camera 1 as PINHOLE 16x12 .* PINHOLE 32x12"),
        (([PINHOLE._replace(id=2)], images("a.jpg", "b.jpg", camera=2)), r"cameras \[1\] beside .* \[2\]"),
    ):
        colmap_models.write_text(tmp_path, *other)
        with pytest.raises(InputError, match=f"{message}.*Remove the older"):
            read_model(tmp_path)


def test_a_binary_model_cut_off_anywhere_is_refused(tmp_path):
    colmap_models.write_binary(tmp_path, [PINHOLE], images("a.jpg", "b.jpg"))
    for name, read in (("cameras", read_model), ("images", read_model), ("points3D", lambda _: points(tmp_path))):
        path = tmp_path / f"{name}.bin"
        whole = path.read_bytes()
        for end in range(len(whole)):
            path.write_bytes(whole[:end])
            with pytest.raises(InputError, match=f"{name}.bin: "):
                read(tmp_path)
        path.write_bytes(whole + b"\1")
        with pytest.raises(InputError, match="1 bytes after the last"):
            read(tmp_path)
        path.write_bytes(b"\xff" * 8 + whole[8:])  # no memory is taken for what cannot be there
        with pytest.raises(InputError, match="18,446,744,073,709,551,615 .* announced in"):
            read(tmp_path)
        path.write_bytes(whole)


def points(folder):
    return read_points(folder / "points3D.bin")


def test_a_text_model_cut_off_is_refused(tmp_path):
    colmap_models.write_text(tmp_path, [PINHOLE], images("a.jpg", "b.jpg"))
    for name in ("cameras", "images"):
        path = tmp_path / f"{name}.txt"
        lines = path.read_text().splitlines(keepends=True)
        for end in range(2, len(lines)):
            path.write_text("".join(lines[:end]))
            with pytest.raises(InputError, match=f"{name}.txt: "):
                read_model(tmp_path)
        path.write_text("".join(lines)[:-8])
        with pytest.raises(InputError, match=f"{name}.txt: line"):
            read_model(tmp_path)
        path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("cameras.txt", "1 PINHOLE 16 12 20 22 7.5\n", "line 1: found 3 parameters of PINHOLE, expected 4"),
        ("cameras.txt", "1 PINHOLE 16 twelve 20 22 7 6\n", "line 1: found 'twelve', expected a whole number"),
        ("cameras.txt", "1 WIDE 16 12 20\n", "line 1: found '1 WIDE 16 12 20', expected CAMERA_ID MODEL"),
        ("cameras.txt", "1 PINHOLE 16 12 20 nan 7.5 6\n", "camera 1: found PINHOLE .*, expected finite parameters"),
        ("cameras.txt", "1 PINHOLE 0 12 20 22 7.5 6\n", "camera 1: found 0x12 pixels"),
        ("cameras.txt", "2 PINHOLE 16 12 20 22 7.5 6\n", "image 7 .a.jpg.: found camera 1, which is not among"),
        ("cameras.txt", "version https://git-lfs.github.com/spec/v1\n", "found a Git LFS pointer.*git lfs pull"),
        ("cameras.txt", None, "cameras.txt: file: found No such file"),
        ("images.txt", "# nothing\n", "images: found none, expected at least one registered image"),
        ("images.txt", "7 1 0 0 0 0 0 4 1\n\n", "line 1: found '7 1 0 0 0 0 0 4 1', expected IMAGE_ID"),
        ("images.txt", "7 1 0 0 x 0 0 4 1 a.jpg\n\n", "line 1: found '1 0 0 x 0 0 4', expected numbers"),
        ("images.txt", "7 1 1 0 0 0 0 4 1 a.jpg\n\n", "a quaternion of length 1.414"),
        ("images.txt", "7 1 0 0 0 0 inf 4 1 a.jpg\n\n", "the translation"),
        ("images.txt", "7 1 0 0 0 0 0 4 1 a.jpg\n\n7 1 0 0 0 0 0 4 1 b.jpg\n\n", "the id '7' more than once"),
        ("images.txt", "7 1 0 0 0 0 0 4 1 a.jpg\n\n8 1 0 0 0 0 0 4 1 a.jpg\n\n", "the name 'a.jpg' more than once"),
        ("images.txt", "7 1 0 0 0 0 0 4 1 a.jpg\n8 1 0 0 0 0 0 4 1 b.jpg\n", "line 2: found 10 words in the points"),
    ],
)
def test_what_is_wrong_in_a_text_model_is_named(tmp_path, file, content, message):
    colmap_models.write_text(tmp_path, [PINHOLE], images("a.jpg"))
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=message):
        read_model(tmp_path)


def test_images_without_their_lines_of_points_are_refused_whatever_their_names(tmp_path):
    colmap_models.write_text(tmp_path, [PINHOLE], images("a.jpg"))
    rows = [f"{key} 1 0 0 0 0.5 0 4 1 one more {key}.jpg" for key in range(1, 5)]  # 12 words, as of four points
    (tmp_path / "images.txt").write_text("\n".join(rows) + "\n")
    message = (
        r"images.txt: line 2: found '2 1 0 0 .*as the points of image 1, expected X Y POINT3D_ID each, or an empty"
    )
    with pytest.raises(InputError, match=message):
        read_model(tmp_path)


def test_another_file_under_a_binary_models_name_is_named(tmp_path):
    colmap_models.write_binary(tmp_path, [PINHOLE], images("a.jpg"))
    (tmp_path / "images.bin").write_text("<!DOCTYPE html><html>not found</html>")
    with pytest.raises(InputError, match="images.bin: file: found an HTML page"):
        read_model(tmp_path)
    (tmp_path / "cameras.bin").write_bytes(b"\1\0\0\0\0\0\0\0" + b"\1\0\0\0" + b"\x63\0\0\0" + bytes(64))
    with pytest.raises(InputError, match="camera 1: found camera model number 99"):
        read_model(tmp_path)


def test_it_agrees_with_pycolmap(write_model):
    pycolmap = pytest.importorskip("pycolmap")
    generator = np.random.default_rng(0)
    quaternions = generator.normal(size=(5, 4))
    quaternions *= (np.sign(quaternions[:, 0]) / np.linalg.norm(quaternions, axis=1))[:, None]
    made = [
        ColmapImage(3 + i, tuple(map(float, q)), tuple(map(float, generator.normal(size=3))), 1, f"{i}.jpg")
        for i, q in enumerate(quaternions)
    ]
    folder = write_model([PINHOLE], made, 0)
    model, theirs = read_model(folder), pycolmap.Reconstruction(str(folder))
    for image, pose in zip(model.images, model.camera_to_world(), strict=True):
        world_to_camera = theirs.images[image.id].cam_from_world
        matrix = (world_to_camera() if callable(world_to_camera) else world_to_camera).inverse().matrix()
        assert np.abs(pose[:3] * (1, -1, -1, 1) - matrix).max() < 1e-12
    assert list(theirs.cameras[1].params) == list(model.cameras[1].parameters)
    for write in (theirs.write_binary, theirs.write_text):  # with rigs and frames, as it has written them since 3.12
        again = folder.with_name(write.__name__)
        again.mkdir()
        write(str(again))
        read = read_model(again)
        assert [image.name for image in read.images] == [image.name for image in model.images]
        assert np.abs(read.camera_to_world() - model.camera_to_world()).max() < 1e-12


def test_a_model_written_as_text_is_read_back(tmp_path):
    cameras = ring_of_cameras(5)
    names = [f"{index}.png" for index in range(5)]
    positions = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    colors = np.arange(12, dtype=np.uint8).reshape(4, 3)
    write_as_text(tmp_path, cameras, names, positions, colors)
    model, points = read_model(tmp_path), read_points(tmp_path / "points3D.txt")
    np.testing.assert_allclose(model.camera_to_world(), cameras.c2w.numpy(), atol=1e-6)
    assert [image.name for image in model.images] == names
    assert model.cameras[3].parameters == tuple(getattr(cameras, key)[2].item() for key in ("fx", "fy", "cx", "cy"))
    assert np.array_equal(points.positions, positions) and np.array_equal(points.colors, colors)
