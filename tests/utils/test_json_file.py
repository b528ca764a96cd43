"""JSON of any content is read, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d2timm import ConfigError
from d2timm.utils.json_file import parse_json, read_json


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"])
def test_encodings(tmp_path: Path, codec: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(json.dumps({"é": 1}, ensure_ascii=False).encode(codec))
    assert read_json(file) == {"é": 1}


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        *((data, "is not JSON: ") for data in (b"", b"{", b'{"images": [}', b"\0" * 9, b"[" * 10**5)),
        (b"\xff", "is not JSON: .*; save it in UTF-8$"),
        ('"é"'.encode("latin-1"), "is not JSON: .*; save it in UTF-8$"),
        (b"9" * 5000, "is not JSON: "),
    ],
)
def test_file_that_is_not_json(tmp_path: Path, data: bytes, facts: str) -> None:
    (tmp_path / "bad.json").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"bad\.json {facts}") as caught:
        read_json(tmp_path / "bad.json")
    assert "\n" not in str(caught.value)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.json cannot be read: No such file"):
        read_json(tmp_path / "missing.json")


def test_text() -> None:
    assert parse_json('{"a": [1]}', "here") == {"a": [1]}
    with pytest.raises(ConfigError, match=r"^here is not JSON: "):
        parse_json("[" * 10**5, "here")
