"""The browser library inside the report is the one that was pinned, with its licence."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files


def test_every_asset_has_its_pinned_digest_and_its_licence_beside_it() -> None:
    assets = files("cardcage_finops").joinpath("assets")
    lock = json.loads(assets.joinpath("assets.json").read_text("utf-8"))
    for package in lock["packages"]:
        for target in package["files"].values():
            data = assets.joinpath(*target["as"].split("/")).read_bytes()
            assert hashlib.sha256(data).hexdigest() == target["sha256"], target["as"]
        licences = [target["as"] for path, target in package["files"].items() if path == "LICENSE"]
        assert licences, package["name"]
        assert package["licence"] in assets.joinpath(*licences[0].split("/")).read_text("utf-8")
