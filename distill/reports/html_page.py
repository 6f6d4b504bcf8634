"""HTML files that need no server and no network: their parts put together, with a policy that admits nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any


def html_page(package: str, scripts: Sequence[str], fields: Mapping[str, str]) -> str:
    """A page of a package's assets: ``page.html``, ``style.css`` and the scripts.

    Notes ``<!--name-->`` of ``page.html`` become fields, of which ``style``, ``script`` and ``policy``, the content
    security policy that admits just these two and pictures that are in the page, are added.
    """
    style, script = asset(package, "style.css"), "\n".join(asset(package, name) for name in scripts)
    policy = f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}"
    fields = {**fields, "policy": policy, "style": style, "script": script}
    return re.sub(r"<!--(\w+)-->", lambda mark: fields[mark[1]], asset(package, "page.html"))


def asset(package: str, name: str) -> str:
    """The text of a file in a package's folder ``assets``."""
    return (resources.files(package) / "assets" / name).read_text(encoding="utf-8")


def json_for_html(data: Any) -> str:
    """JSON that no HTML parser takes for markup, whatever the text in it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _hash(text: str) -> str:
    """The policy's word for just this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
