"""Cores of this process, or the share of them that a sweep leaves to it."""

from __future__ import annotations

import os

import pytest

from d2timm.utils.cores import SHARE, count_cores


@pytest.mark.parametrize("share", ["", "0", "-1", "many"])
def test_cores_of_the_process(share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARE, share)
    assert count_cores() == (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )


def test_share_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARE, "3")
    assert count_cores() == 3
