"""A message appears once in all processes of a run."""

from __future__ import annotations

import multiprocessing

from d2timm.utils.once import Once


def test_only_the_first_call_is_true() -> None:
    once, other = Once(), Once()
    assert [once(), once(), once(), other()] == [True, False, False, True]


def test_forked_processes_share_it() -> None:
    once = Once()
    worker = multiprocessing.get_context("fork").Process(target=once)
    worker.start()
    worker.join()
    assert not once()
