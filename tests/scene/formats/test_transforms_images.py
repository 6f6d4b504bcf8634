"""Finding a dataset's images, and naming its frames."""

import pytest

from scene.formats.transforms_images import EXTENSIONS, find_images, first_sought, frame_names
from settings.errors import InputError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("file_path", "on_disk"),
    [
        ("./r_0", "r_0.png"),
        ("r_0", "r_0.JPEG"),
        ("r_0", "r_0.Png"),
        ("r_0", "r_0.webp"),
        ("r_0", "r_0.tif"),
        ("./r_0", "r_0.png.png"),
        ("./r_0.png", "r_0.png.png"),
        ("r_0.png.png", "r_0.png"),
        ("r_0.PNG", "r_0.png"),
        ("r_0.jpg", "r_0.png"),
        (".\\images\\r_0.png", "images/r_0.png"),
        ("C:\\Users\\me\\scan\\r_0.png", "r_0.png"),
        ("/home/me/scan/images/r_0.png", "images/r_0.png"),
        ("./data\\7-22\\5\\images/0001.jpg", "images/0001.jpg"),
        ("mein Bild #3 100% ü城.png", "mein Bild #3 100% ü城.png"),
    ],
)
def test_an_image_is_found(tmp_path, file_path, on_disk):
    touch(tmp_path, on_disk)
    assert find_images(tmp_path / "t.json", [file_path]) == (tmp_path / on_disk,)


def test_exact_names_come_first(tmp_path):
    touch(tmp_path, "r_0.png", "r_0.jpg", "R_0.png")
    names = ["r_0.png", "r_0.jpg", "R_0.png"]
    assert [path.name for path in find_images(tmp_path / "t.json", names)] == names
    assert find_images(tmp_path / "t.json", ["r_0"])[0].name == "r_0.png"


def test_one_image_for_two_frames_is_refused_and_both_are_named(tmp_path):
    touch(tmp_path, "r_0.png", "r_1.png")
    message = (
        r"t.json: file_path: found .*r_0.png for frames\[0\] \('r_0.png'\) and frames\[2\] \('r_0.jpg'\), expected"
    )
    with pytest.raises(InputError, match=message):
        find_images(tmp_path / "t.json", ["r_0.png", "r_1.png", "r_0.jpg"])


def test_moved_images_are_said_and_never_shared(tmp_path, caplog):
    touch(tmp_path, "0.png")
    assert find_images(tmp_path / "t.json", ["C:\\scan\\0.png"]) == (tmp_path / "0.png",)
    assert "1 of 1 images are not where file_path says" in caplog.text
    assert find_images(tmp_path / "t.json", ["/left/0.png", "/right/0.png"]) == (None, None)
    # Another split's image of that name is none of ours.
    assert find_images(tmp_path / "t.json", ["train/0.png"]) == (None,)


def test_missing_images_move_none_of_the_others(tmp_path):
    touch(tmp_path, "r_0.png", "r_3.png")
    found = find_images(tmp_path / "t.json", ["r_0", "r_1", "r_2", "r_3", "\0"])
    assert found == (tmp_path / "r_0.png", None, None, tmp_path / "r_3.png", None)


def test_the_first_missing_image_is_named_with_what_is_there_in_its_place(tmp_path):
    source, names = tmp_path / "t.json", ["images/a b.png", "images/a%20c.png", "images/d.png"]
    touch(tmp_path, "Images/a b.png", "images.txt")
    found = find_images(source, names[:1])
    assert first_sought(source, names[:1], found) == (
        f"{tmp_path}/images/a b.png, itself and with {', '.join(EXTENSIONS)} in any case; "
        f"{tmp_path}/Images/a b.png is there: folders are told apart by capitals"
    )
    touch(tmp_path, "images/a c.png", "images/d.png")
    words = first_sought(source, names[1:2], find_images(source, names[1:2]))
    assert f"{tmp_path}/images/a c.png is there: write the file_path as the file is named, without %20" in words
    assert first_sought(source, names[2:], find_images(source, names[2:])) == ""


def test_a_teachers_renders_are_no_images_of_the_dataset(tmp_path, caplog):
    touch(tmp_path, "out/renders/00000.png", "out/renders/00001.png", "renders/r_0.png")
    paths = ["out/renders/00000.png", "out/renders/00001.png"]
    assert find_images(tmp_path / "a.json", paths) == (None, None)
    assert "there is no gt/ beside, so no ground truth" in caplog.text
    touch(tmp_path, "out/gt/00000.png", "out/gt/00001.png")
    assert find_images(tmp_path / "b.json", paths) == tuple(tmp_path / f"out/gt/0000{i}.png" for i in range(2))
    assert "gt/ beside has 2 of the images" in caplog.text
    # Blender users call the folder of their images so too.
    assert find_images(tmp_path / "c.json", ["renders/r_0.png"]) == (tmp_path / "renders/r_0.png",)


def test_of_a_teachers_render_it_is_said_where_the_image_is_sought(tmp_path):
    touch(tmp_path, "out/renders/00000.png")
    source, paths = tmp_path / "c.json", ["out/renders/00000.png"]
    words = f"{tmp_path}/out/gt/00000.png, since {tmp_path}/out/renders/00000.png is a teacher's own render"
    assert first_sought(source, paths, find_images(source, paths)) == words


@pytest.mark.parametrize(
    ("file_paths", "names"),
    [
        (["./train/r_0", "./train/r_1.PNG"], ("r_0", "r_1")),
        ([".\\images\\r_0.png", "./..\\data/r_1.png"], ("r_0", "r_1")),
        (["C:\\Users\\me\\r_0.png", "C:\\Users\\me\\r_1.png"], ("r_0", "r_1")),
        (["left/0.png", "right/0.png"], ("left_0", "right_0")),
        (["../left/0.png", "../right/0.png"], ("left_0", "right_0")),
        (["a/b_0.png", "a_b/0.png", "c/0.png"], ("a__b_0", "a_b__0", "c__0")),
        (["r_0.png", "r_0.jpg"], ("r_0_png", "r_0_jpg")),
        (["r_0.png.png", "r_1.png.png"], ("r_0", "r_1")),
    ],
)
def test_names_are_short_and_unique(file_paths, names):
    assert frame_names("t.json", file_paths) == names


def test_repeated_frames_are_counted():
    paths = [f"r_{i}" for i in range(17)] + ["./r_3", "r_4", ".\\r_5"]
    with pytest.raises(InputError, match=r"file_path 'r_3' more than once \(3 of 20 frames repeat one before them\)"):
        frame_names("t.json", paths)
    with pytest.raises(InputError, match="an empty file_path"):
        frame_names("t.json", ["./"])
