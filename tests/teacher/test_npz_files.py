"""An archive is read to the byte, or refused before anything is allocated."""

import io
import zipfile

import numpy as np
import pytest

from teacher.npz_files import NPZ_ERRORS, load_npz, save_npz


def test_what_was_saved_is_read(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.arange(6).reshape(2, 3)), "c": np.array("x")}
    save_npz(tmp_path / "f.npz", **arrays)
    read = load_npz(tmp_path / "f.npz")
    assert read.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name], values)


def member(shape, values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue().replace(str(values.shape).encode(), shape.encode(), 1)


@pytest.mark.parametrize("shape", ["(9, 9)", "(1,  )", "(3, 3, 9999999999999)"])
def test_an_array_that_is_not_as_long_as_it_says(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as archive:
        archive.writestr("a.npy", member(shape, np.zeros((3, 3))))
    with pytest.raises(NPZ_ERRORS, match=r"a.npy: \d+ bytes for float64"):
        load_npz(tmp_path / "f.npz")


def test_one_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "f.npz"
    save_npz(path, a=np.random.default_rng(0).normal(size=400))
    whole = path.read_bytes()
    for place in range(60, len(whole) - 200, 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(NPZ_ERRORS):
            load_npz(path)
