"""Signals that ask a process to stop: a training first completes its step and saves its state.

Ctrl-C sends SIGINT, ``kill`` and schedulers send SIGTERM, and SLURM sends SIGUSR1 before the end of the time
limit if ``--signal=USR1@120`` asks it to.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["STOP_SIGNALS", "Interrupted", "StopSignals"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
#: Seconds in which further signals are the same request: a terminal and a parent process may both send one
SAME_REQUEST = 1.0


class Interrupted(BaseException):
    """A signal asked this process to stop.

    Like KeyboardInterrupt it is not an Exception, because it is no error.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        self.number = signal.Signals(number)
        super().__init__(f"interrupted by {self.number.name}")

    @property
    def exit_code(self) -> int:
        """The code that shells report for a process that the signal ended: 128 + its number."""
        return 128 + self.number


class StopSignals:
    """Raises ``Interrupted`` in the main thread when a signal asks to stop: at once, or after a held part.

    A second signal, a second later or more, ends the process at once. Processes that are forked from this one
    end at the first.

    Attributes:
        received: the signal; None if there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._held = 0
        self._on_signal: Callable[[int], None] | None = None

    @contextmanager
    def handled(self, on_signal: Callable[[int], None] | None = None) -> Iterator[None]:
        """Handle the signals during a block; in other threads than the main one, Python cannot.

        Args:
            on_signal: called for the first signal, before ``Interrupted`` is raised, which it can prevent by
                ``hold``.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        self._on_signal = on_signal
        earlier: dict[int, Any] = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        self.install()
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Install the handlers, once more after other code has replaced or blocked them."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = number, time.monotonic()
            if self._on_signal:
                self._on_signal(number)
            if not self._held:
                raise Interrupted(number)
        elif time.monotonic() - self._since > SAME_REQUEST:
            _end(number)

    def hold(self) -> None:
        """From now on, only note a signal; ``release`` ends this."""
        self._held += 1

    def release(self) -> None:
        """Raise ``Interrupted`` if a signal was noted, unless an outer part is still held."""
        self._held -= 1
        if self.received is not None and not self._held:
            raise Interrupted(self.received)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Raise ``Interrupted`` at once during a block of a held part."""
        held, self._held = self._held, 0
        try:
            if self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self._held = held

    @contextmanager
    def held(self) -> Iterator[None]:
        """Complete a block before ``Interrupted`` is raised."""
        self.hold()
        try:
            yield
        except BaseException:
            self._held -= 1
            raise
        self.release()


def _forget_handlers() -> None:
    """Let signals end a process that was forked while they were handled.

    A handler in Python would not do: that of a signal just before a process waits for a lock, as the workers
    of a pool do, runs after the wait, which may never end.
    """
    for number in STOP_SIGNALS:
        if isinstance(getattr(signal.getsignal(number), "__self__", None), StopSignals):
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget_handlers)


def _end(number: int) -> None:
    """End this process by a signal, as if it had no handler for it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
