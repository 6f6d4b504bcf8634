import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from settings.errors import InputError
from teacher.depth_files import read_depth


def test_headers_are_read_one_at_a_time(tmp_path, monkeypatch):
    np.save(tmp_path / "d.npy", np.ones((2, 3), np.float32))
    read_magic, inside, most = np.lib.format.read_magic, threading.Semaphore(0), []

    def slowly(file):
        inside.release()
        time.sleep(0.01)
        most.append(inside._value)
        inside.acquire()
        return read_magic(file)

    monkeypatch.setattr(np.lib.format, "read_magic", slowly)
    with ThreadPoolExecutor(4) as pool:
        depths = list(pool.map(read_depth, [tmp_path / "d.npy"] * 8))
    assert all(depth.shape == (2, 3) for depth in depths)
    assert most == [1] * 8


def save(path, array):
    with path.open("wb") as file:
        np.save(file, array)
    return path


@pytest.mark.parametrize(
    "store",
    [
        lambda values: values[..., None],
        lambda values: values[None],
        lambda values: values.astype(np.float64),
        lambda values: values.astype(">f4"),
        np.asfortranarray,
        lambda values: values.astype(np.float16),
    ],
)
def test_the_same_numbers_however_they_are_stored(tmp_path, store):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    read = read_depth(save(tmp_path / "d.npy", store(values)))
    assert read.dtype == torch.float32 and read.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, np.nan], [np.inf, 1]], np.float32), r"1 inf, 1 NaN of 4 .*'teacher.depth_empty=\[inf, nan\]'"),
        (np.array([[1, 1e300], [0, 1]]), "d.npy: depth: found 1 inf of 4 values"),
        (np.array([[1, -0.5], [0, -0.25]], np.float32), "found 2 negative of 4 .*teacher.depth_empty=negative"),
        (np.array([[1, -1], [0, -1]], np.float32), "found 2 negative of 4 values.*--set teacher.depth_empty=-1. Oth"),
        (np.array([[-2.0, -3], [0, -1]]), "found 3 negative .* All depth is negative: if z is counted against"),
        (np.array([[2, 1e10], [3, 1e10]], np.float32), "found 2 absurdly far .1e.10 and more. .*depth_empty=1e.10"),
        (np.array([[2, 65.535], [3, 65.535]], np.float32), "teacher.depth_empty=65.535. Otherwise .*depth_empty=..'"),
        (np.array([[2, 3e7], [2, 8e6]], np.float32), "found 2 absurdly far .1e.06 and more"),
        (np.full((2, 2), 1e10), "found 4 absurdly far"),
        (np.full((2, 2), 2103, np.uint16), "depth dtype: found uint16, 2103 to 2103 .*millimetres.* divide by 1000"),
        (np.ones((2, 2), np.uint8), "d.npy: depth dtype: found uint8"),
        (np.ones((2, 2), complex), "d.npy: depth dtype: found complex128, expected floating"),
        (np.ones((2, 2, 3), np.float32), r"d.npy: depth shape: found \(2, 2, 3\)"),
        (np.array([[{}]], dtype=object), "d.npy: depth: found unreadable data .pickled objects"),
    ],
)
def test_bad_depth_values(tmp_path, array, message):
    with pytest.raises(InputError, match=message):
        read_depth(save(tmp_path / "d.npy", array))


@pytest.mark.parametrize(
    ("values", "empty"),
    [
        ([np.inf, -np.inf], ["inf"]),
        ([np.nan, np.inf], ["inf", "nan"]),
        ([-1, -5], ["negative"]),
        ([-1, -1], [-1.0]),
        ([1e10, np.inf], [1e10]),
        ([65.535, 65.535], [65.535]),
    ],
)
def test_what_is_said_to_be_nothing_is_nothing(tmp_path, values, empty):
    path = save(tmp_path / "d.npy", np.array([[2, values[0]], [3, values[1]]], np.float32))
    assert read_depth(path, empty).tolist() == [[2, 0], [3, 0]]
    with pytest.raises(InputError, match="depth_empty"):
        read_depth(path)


def test_true_values_can_be_far(tmp_path):
    path = save(tmp_path / "d.npy", np.array([[2, 50], [3, 50]], np.float32))
    assert read_depth(path, []).tolist() == [[2, 50], [3, 50]]


def test_one_over_a_far_sky_is_nothing(tmp_path):
    assert read_depth(save(tmp_path / "d.npy", np.array([[0.5, 1e-10], [0.4, 0]]))).tolist() == [
        [0.5, 0],
        [np.float32(0.4), 0],
    ]


def test_bad_depth_files(tmp_path):
    path = tmp_path / "d.npy"
    with pytest.raises(InputError, match="d.npy: depth: found no such file"):
        read_depth(path)
    whole = save(path, np.ones((8, 8), np.float32)).read_bytes()
    for damaged in (b"", whole[:40], whole[:-4], whole + b"....", whole.replace(b"(8, 8)", b"(9, 9)")):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="d.npy: depth: found unreadable data"):
            read_depth(path)
    path.write_bytes(whole.replace(b"(8, 8)", b"(8**9)"))
    with pytest.raises(InputError, match="d.npy: depth: found unreadable data"):
        read_depth(path)


def test_other_files_are_named_for_what_they_are(tmp_path):
    path = tmp_path / "d.npy"
    np.savez(tmp_path / "d.npz", depth=np.ones((2, 2)))
    path.write_bytes((tmp_path / "d.npz").read_bytes())
    with pytest.raises(InputError, match=r"found an archive \(.npz\) of depth, .*np.load\(path\)\['NAME'\]"):
        read_depth(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 165945523\n")
    with pytest.raises(InputError, match="found a Git LFS pointer.* git lfs pull"):
        read_depth(path)
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="found a PNG picture"):
        read_depth(path)
