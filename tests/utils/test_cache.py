"""Where the cache is: the variable of ours, the desktop's, or below the home folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2timm.utils.files import cache_root


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("D2TIMM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("variables", "root"),
    [
        ({}, "/home/me/.cache/d2timm"),
        ({"XDG_CACHE_HOME": "/var/cache"}, "/var/cache/d2timm"),
        ({"D2TIMM_CACHE": "/data/cache"}, "/data/cache"),
        ({"D2TIMM_CACHE": "/data/cache", "XDG_CACHE_HOME": "/var/cache"}, "/data/cache"),
        ({"D2TIMM_CACHE": "~/cache"}, "/home/me/cache"),
        ({"D2TIMM_CACHE": "", "XDG_CACHE_HOME": ""}, "/home/me/.cache/d2timm"),
    ],
)
def test_first_that_is_set(variables: dict[str, str], root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_root() == Path(root)


def test_is_absolute_and_not_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2TIMM_CACHE", "here")
    assert cache_root() == tmp_path / "here"
    assert not list(tmp_path.iterdir())
