"""Signals end a block as an exception, after a part that must be completed; a second one ends the process."""

# ruff: noqa: PT012  # the signal arrives inside of the block

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from d2timm.utils.signals import SAME_REQUEST, STOP_SIGNALS, Interrupted, StopSignals


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_is_an_exception_with_the_exit_code_of_shells(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    with (
        pytest.raises(Interrupted, match=f"^interrupted by {number.name}$") as caught,
        StopSignals().handled(),
    ):
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert caught.value.exit_code == {"SIGINT": 130, "SIGUSR1": 138, "SIGTERM": 143}[number.name]
    assert not isinstance(caught.value, Exception)
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before


def test_held_part_is_completed() -> None:
    signals, done = StopSignals(), []
    with pytest.raises(Interrupted), signals.handled():
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)  # the same request, as when a terminal and a parent send both
            with signals.held():
                done.append(1)
            done.append(2)
        done.append(3)
    assert done == [1, 2]
    assert signals.received == signal.SIGTERM


def test_forked_process_has_no_handler_that_a_wait_could_delay() -> None:
    def check() -> None:
        sys.exit(any(signal.getsignal(number) != signal.SIG_DFL for number in STOP_SIGNALS))

    with StopSignals().handled():
        process = multiprocessing.get_context("fork").Process(target=check)
        process.start()
        process.join(30)
    assert process.exitcode == 0


def test_forked_process_ends_as_without_a_handler() -> None:
    signals = StopSignals()
    with signals.handled(), signals.held():
        fork = multiprocessing.get_context("fork")
        begun = fork.Event()
        process = fork.Process(target=lambda: begun.set() or time.sleep(60))
        process.start()
        begun.wait(30)
        process.terminate()
        process.join(30)
    assert process.exitcode == -signal.SIGTERM
    assert signals.received is None


def test_error_in_a_held_part_goes_on() -> None:
    signals = StopSignals()
    with pytest.raises(ZeroDivisionError), signals.handled(), signals.held():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ZeroDivisionError
    with pytest.raises(Interrupted), signals.held():
        pass


def test_first_signal_is_passed_on() -> None:
    seen: list[int] = []
    with pytest.raises(Interrupted), StopSignals().handled(seen.append):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]


def test_second_signal_ends_the_process_at_once() -> None:
    code = f"""
import os, signal, time
from d2timm.utils.signals import StopSignals
signals = StopSignals()
with signals.handled(), signals.held():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep({SAME_REQUEST + 0.1})
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(9)
"""
    begin = time.monotonic()
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGINT
    assert time.monotonic() - begin < 9


def test_signal_is_raised_in_a_released_block_of_a_held_part() -> None:
    signals = StopSignals()
    with signals.handled(), pytest.raises(Interrupted):
        signals.hold()
        with signals.released():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("it goes on")
    signals = StopSignals()
    with signals.handled(), pytest.raises(Interrupted):
        signals.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        with signals.released():
            raise AssertionError("it goes on")
