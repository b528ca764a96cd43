"""Log messages: control characters in names are escaped, colours are kept."""

from __future__ import annotations

import logging
import threading

import pytest

from d2timm.utils.quiet import escape_controls, silence


def test_control_characters_are_escaped_and_colours_kept() -> None:
    record = logging.LogRecord(
        "a", logging.INFO, "a.py", 1, "\x1b[36m%s\x1b[0m\n%d", ("b\x1b]0;c\x07\x1b[2J", 3), None
    )
    assert escape_controls(record)
    assert record.getMessage() == "\x1b[36mb\\x1b]0;c\\x07\\x1b[2J\x1b[0m\n3"
    percent = logging.LogRecord("a", logging.INFO, "a.py", 1, "100%", (), None)
    assert escape_controls(percent)
    assert percent.getMessage() == "100%"


class Failing(threading.Thread):
    """A thread that fails, and may keep its error for another one to raise, as TensorBoard's writer does."""

    def __init__(self, hands_on: bool) -> None:
        super().__init__()
        self.exception: Exception | None = None
        self.hands_on = hands_on

    def run(self) -> None:
        try:
            raise OSError("full")
        except OSError as error:
            self.exception = error if self.hands_on else None
            raise


@pytest.mark.parametrize("hands_on", [True, False])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_error_of_a_thread_is_printed_unless_it_is_handed_on(
    hands_on: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # restored in the end
    silence()
    thread = Failing(hands_on)
    thread.start()
    thread.join()
    assert ("OSError: full" in capsys.readouterr().err) != hands_on
