"""Custom datasets in COCO format: their ``data`` node, before and after edits of their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_edits import Edit
from helpers.data_nodes import data_node

from d2timm.data import catalog


@pytest.fixture
def data(small_coco: Any) -> dict[str, Any]:
    """The ``data`` node of the small COCO dataset."""
    return data_node(**{name: str(path) for name, path in vars(small_coco).items()})


@pytest.fixture
def edited(data: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``edited(edit, *splits)``: the same node with edited annotation files, by default of both splits."""

    def apply(edit: Edit, *splits: str) -> dict[str, Any]:
        node = dict(data)
        for split in splits or ("train", "val"):
            coco = json.loads(Path(data[f"{split}_json"]).read_text())
            edit(coco)
            file = tmp_path / f"{split}.json"
            file.write_text(json.dumps(coco))
            node[f"{split}_json"] = str(file)
        return node

    return apply


@pytest.fixture
def forgetting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the datasets of a test after it; their cache need not survive a power cut."""
    monkeypatch.setattr("os.fsync", lambda file: None)
    yield
    catalog.forget()
