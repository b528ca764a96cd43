"""d2timm report --serve: the page on this machine only, and nothing else."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.pages import put_full, put_sweep

from d2timm import ConfigError
from d2timm.report.page import serve
from d2timm.report.page.serve import LivePage, PageServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    """A server of a sweep with two runs, that looks at the runs for each request."""
    put_sweep(tmp_path, 2)
    with PageServer(LivePage(tmp_path, period=0), 0) as made:
        made.page._due = 0.0
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()


def get(
    server: PageServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, dict(answer.getheaders())


def test_page_and_version(server: PageServer) -> None:
    status, page, headers = get(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert "model1 is best" in page
    assert "connect-src &#39;self&#39;" in page
    status, version, _ = get(server, "/version")
    assert status == 200
    found = re.search(r'data-version="(\w+)"', page)
    assert found
    assert found[1] == version


@pytest.mark.parametrize(
    "path",
    [
        "/report.html",
        "/../etc/passwd",
        "/backbone=model0/result.json",
        "/?",
        "/version?x",
        "/%2e%2e/x",
    ],
)
def test_everything_else_is_not_found(path: str, server: PageServer) -> None:
    status, text, _ = get(server, path)
    assert (status, text) == (404, "not found")


def test_other_methods_are_refused(server: PageServer) -> None:
    assert get(server, "/", method="POST")[0] == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:123", 200),
        ("LOCALHOST", 200),
        ("evil.example", 403),
        ("evil.example:8642", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("", 403),
        ("[::1]", 403),
    ],
)
def test_names_of_other_hosts_are_refused(host: str, status: int, server: PageServer) -> None:
    assert get(server, "/version", host)[0] == status


def test_only_this_machine_is_served(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_page_follows_the_runs(server: PageServer, tmp_path: Path) -> None:
    before = get(server, "/version")[1]
    server.page._due = 0.0
    assert get(server, "/version")[1] == before
    put_full(tmp_path / "backbone=other", 50.0)
    server.page._due = 0.0
    assert get(server, "/version")[1] != before
    assert "other is best" in get(server, "/")[1]


def test_page_stays_if_the_folder_is_gone(server: PageServer, tmp_path: Path) -> None:
    before = get(server, "/")[1]
    tmp_path.rename(tmp_path.with_name("moved"))
    server.page._due = 0.0
    assert get(server, "/")[:2] == (200, before)


def test_pages_take_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_sweep(tmp_path, 1)
    page = LivePage(tmp_path, period=0)
    looks: list[float] = []

    def slow(folder: Path) -> int:
        looks.append(time.monotonic())
        time.sleep(0.05)
        return len(looks)

    monkeypatch.setattr(serve, "state_of", slow)
    for _ in range(20):
        page.version()
    assert len(looks) == 1


@pytest.mark.parametrize("port", [-1, 65536])
def test_impossible_port(port: int, tmp_path: Path) -> None:
    put_sweep(tmp_path, 1)
    with pytest.raises(ConfigError, match=f"--port {port}"):
        serve.serve(tmp_path, port)


def test_port_in_use_is_an_error_of_one_line(tmp_path: Path) -> None:
    put_sweep(tmp_path, 1)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}.*in use") as caught:
            serve.serve(tmp_path, port)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_signal_ends_it_without_a_traceback(number: signal.Signals, code: int, tmp_path: Path) -> None:
    put_sweep(tmp_path, 1)
    files = sorted(path.name for path in tmp_path.iterdir())
    command = [sys.executable, "-m", "d2timm", "report", str(tmp_path), "--serve", "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found, line
    connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
    connection.request("GET", "/version")
    assert connection.getresponse().status == 200
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == files, "nothing is written"


def test_flags_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from d2timm.cli import main

    put_sweep(tmp_path, 1)
    for flags in (["--port", "0"], ["--serve", "--json"]):
        assert main(["report", str(tmp_path), *flags]) == 2
        assert flags[0] in capsys.readouterr().err
    assert main(["report", str(tmp_path / "missing"), "--serve"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert json.loads((tmp_path / "backbone=model0" / "result.json").read_text())
