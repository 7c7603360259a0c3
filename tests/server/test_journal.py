# SPDX-License-Identifier: Apache-2.0
"""What the operator reads: one line a record, whatever a stranger put into it, and not a thousand of the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from replicas.daemon.journal import MUFFLED_BURST, MUFFLED_PERIOD_S, Muffler, log, notify_supervisor, open_journal


@pytest.fixture
def _restored() -> Iterator[None]:
    root = logging.getLogger("dthreading")
    loud = logging.getLogger("asyncio")
    before = root.handlers[:], root.level, root.propagate, loud.handlers[:]
    yield
    root.handlers[:], root.level, root.propagate, loud.handlers[:] = before


@pytest.mark.usefixtures("_restored")
def test_a_plain_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    open_journal(replica=2, level="info", as_json=False)
    log.warning("from %s", "evil\n2026 INFO replica 1: all is well")
    log.debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert " WARNING replica 2: from evil\\n2026" in line


@pytest.mark.usefixtures("_restored")
def test_a_json_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    open_journal(replica=2, level="info", as_json=True)
    try:
        raise ValueError("no\nway")
    except ValueError:
        log.exception("it %s", "broke")
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["replica"], record["text"]) == ("error", 2, "it broke")
    assert "ValueError" in record["traceback"]


def test_a_flood_is_a_burst_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("dthreading").propagate = True
    muffler = Muffler()
    for _ in range(1000):
        muffler.warn(5.0, "bad bytes")
    assert len(caplog.records) == MUFFLED_BURST
    muffler.warn(5.0 + MUFFLED_PERIOD_S, "bad bytes again")
    assert [record.getMessage() for record in caplog.records[-2:]] == [
        f"{1000 - MUFFLED_BURST} more lines like the following were left out",
        "bad bytes again",
    ]


@pytest.mark.parametrize("path", ["", "relative", "/does/not/exist"])
def test_no_supervisor_is_no_trouble(path: str) -> None:
    notify_supervisor({"NOTIFY_SOCKET": path} if path else {}, "READY=1")
