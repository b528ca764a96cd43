"""Log messages: control characters in names are escaped, colours are kept."""

from __future__ import annotations

import logging

from d2timm.utils.quiet import escape_controls


def test_control_characters_are_escaped_and_colours_kept() -> None:
    record = logging.LogRecord(
        "a", logging.INFO, "a.py", 1, "\x1b[36m%s\x1b[0m\n%d", ("b\x1b]0;c\x07\x1b[2J", 3), None
    )
    assert escape_controls(record)
    assert record.getMessage() == "\x1b[36mb\\x1b]0;c\\x07\\x1b[2J\x1b[0m\n3"
    percent = logging.LogRecord("a", logging.INFO, "a.py", 1, "100%", (), None)
    assert escape_controls(percent)
    assert percent.getMessage() == "100%"
