"""PlayCanvas's SOG, made by hand: pictures of random bytes, what they mean, and the archive of them."""

import json
import zipfile
from io import BytesIO

import numpy as np
from PIL import Image

COUNT = 5
TABLE = np.linspace(-6, -1, 256).tolist()
COLORS = np.linspace(-1.5, 1.5, 256).tolist()


def picture(rows, width=3):
    """Lossless WebP of (N, 4) bytes, filled up with zeros to whole rows."""
    rows = np.asarray(rows, np.uint8)
    rows = np.concatenate([rows, np.zeros((-len(rows) % width, 4), np.uint8)])
    file = BytesIO()
    Image.fromarray(rows.reshape(-1, width, 4), "RGBA").save(file, "WEBP", lossless=True, exact=True)
    return file.getvalue()


def splat(version=2, bands=0):
    """Members of a SOG: names and contents, ``meta.json`` as a dictionary."""
    rng = np.random.default_rng(0)
    pixels = {name: rng.integers(0, 256, (COUNT, 4)) for name in ("means_l", "means_u", "scales", "sh0")}
    pixels["quats"] = np.array([[128, 128, 128, 252], [0, 128, 128, 253], [128, 255, 0, 254], [128] * 3 + [255]] * 2)
    pixels["quats"] = pixels["quats"][:COUNT]
    files = {f"{name}.webp": picture(rows) for name, rows in pixels.items()}
    meta = {"means": {"mins": [-1.0, -2, 0], "maxs": [1.0, 2, 3], "files": ["means_l.webp", "means_u.webp"]}}
    for name, table in (("scales", TABLE), ("sh0", COLORS)):
        ends = {"mins": [table[0]] * 3, "maxs": [table[-1]] * 3}
        meta[name] = {"files": [f"{name}.webp"], **({"codebook": table} if version == 2 else ends)}
    meta["quats"] = {"files": ["quats.webp"]}
    if version == 2:
        meta |= {"version": 2, "count": COUNT}
    else:
        meta["means"]["shape"] = [COUNT, 3]
        for end, value in (("mins", -5.0), ("maxs", 5.0)):
            meta["sh0"][end] = [*meta["sh0"][end], value]
    if bands:
        coefficients = (bands + 1) ** 2 - 1
        palette = rng.integers(0, 256, (2 * 64 * coefficients, 4))
        labels = np.array([[0, 0, 0, 255], [70, 0, 0, 255], [1, 0, 0, 255], [127, 0, 0, 255], [64, 0, 0, 255]])
        files |= {"c.webp": picture(palette, 64 * coefficients), "l.webp": picture(labels)}
        meta["shN"] = {"bands": bands, "count": 128, "codebook": COLORS, "files": ["c.webp", "l.webp"]}
        pixels["palette"], pixels["labels"] = palette.reshape(128, coefficients, 4), labels
    return files | {"meta.json": meta}, pixels


def packed(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, json.dumps(content) if isinstance(content, dict) else content)
    return path
