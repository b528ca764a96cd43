"""Errors become one line, whatever their message is."""

from __future__ import annotations

import pytest

from d2timm.errors import ConfigError
from d2timm.utils.text import error_reason, first_line, one_line, printable


def test_one_line_keeps_all_lines_of_the_message() -> None:
    error = ValueError("  two\n\n  lines\twith   gaps ")
    assert one_line(error) == "two lines with gaps"
    assert one_line(error, with_type=True) == "ValueError: two lines with gaps"
    assert one_line("a\nmessage") == "a message"


def test_first_line_keeps_the_first_line_that_is_not_blank() -> None:
    error = ValueError("\n  first \nsecond")
    assert first_line(error) == "first"
    assert first_line(error, with_type=True) == "ValueError: first"
    assert first_line("a\nmessage") == "a"


@pytest.mark.parametrize("function", [one_line, first_line])
@pytest.mark.parametrize("with_type", [False, True])
@pytest.mark.parametrize("message", ["", " \n "])
def test_error_without_a_message_is_its_class(function, with_type: bool, message: str) -> None:
    assert function(KeyError(), with_type=with_type) == "KeyError"
    assert function(OSError(message), with_type=with_type) == "OSError"


@pytest.mark.parametrize("function", [one_line, first_line, error_reason])
@pytest.mark.parametrize("error", [Exception(), Exception("\n\nlate"), Exception("  "), ConfigError("")])
def test_result_is_one_stripped_line(function, error: Exception) -> None:
    text = function(error)
    assert text
    assert text == text.strip()
    assert "\n" not in text


@pytest.mark.parametrize("function", [one_line, first_line, error_reason])
def test_long_messages_are_cut(function) -> None:
    assert len(function(ValueError("x" * 1000))) == 200


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FloatingPointError("loss is nan\nmore"), "FloatingPointError: loss is nan"),
        (ConfigError("max_iter=0: at least 1\nmore"), "max_iter=0: at least 1"),
        (ConfigError(""), "ConfigError"),
        (MemoryError(), "MemoryError"),
        (SystemExit(143), "SystemExit: 143"),
    ],
    ids=repr,
)
def test_reason_names_the_class_of_unexpected_errors(error: BaseException, reason: str) -> None:
    assert error_reason(error) == reason


def test_printable_text_has_no_control_characters() -> None:
    assert printable("a b, 写 é") == "a b, 写 é"
    assert printable("a\nb\x1b[31m\t\ud800\x07") == "a\\nb\\x1b[31m\\t\\ud800\\x07"
    assert printable("a\nb\r", lines=True) == "a\nb\\r"
    assert one_line(ValueError("a\x1b]0;title\x07\nb")) == "a\\x1b]0;title\\x07 b"
    assert first_line(ValueError("a\x9b1m\nb")) == "a\\x9b1m"
