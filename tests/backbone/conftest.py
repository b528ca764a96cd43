"""Options of the zoo check, and its table from the results of all workers."""

from __future__ import annotations

import json
from typing import Any

import pytest

ROWS: dict[str, Any] = {}  # model name -> row, of the tests that passed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--zoo", metavar="PATTERN", help="check these timm models (default: a sample)")
    parser.addoption("--write-zoo", action="store_true", help="write zoo.json and docs/zoo.md")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, value in report.user_properties if report.when == "call" and report.passed else ():
        if name == "zoo_row":
            row = json.loads(value)
            ROWS[row["model_name"]] = row


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    from helpers import zoo_tables

    writes = session.config.getoption("--write-zoo", False) and not hasattr(session.config, "workerinput")
    if writes and exitstatus == pytest.ExitCode.OK:
        zoo_tables.write(list(ROWS.values()))
