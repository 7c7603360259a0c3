# SPDX-License-Identifier: Apache-2.0
"""A newcomer's asking never ends in silence: whatever stops it is told to somebody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from replicas.daemon import options as options_module
from replicas.daemon.connections import Outgoing
from replicas.daemon.loop import Loop
from replicas.daemon.petition import Petition


class Host:
    """Is told nothing here."""

    def admitted(self, admission: object) -> None:
        raise AssertionError("nobody was admitted")

    def unwelcome(self, code: object, sentence: str) -> None:
        raise AssertionError(sentence)


@pytest.mark.parametrize(
    "answer",
    [
        {"done": True, "admission": b"not one"},
        {"done": True},
        {"refused": True},
        {"done": False, "say": "wait", "servers": ("nonsense",)},
    ],
)
def test_an_answer_that_means_nothing_ends_the_asking_aloud(
    answer: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for nothing any more, and says so nowhere, is the worst of all that could become of it."""
    options = options_module.parse(
        ["--join", "127.0.0.1:1", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:2"], {}
    )

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        told: asyncio.Future[object] = loop.create_future()
        loop.set_exception_handler(lambda _, context: told.done() or told.set_result(context.get("exception")))
        petition = Petition(
            options, b"i", 0, "", secret=lambda _: None, outgoing=Outgoing(loop.soon), loop=loop, host=Host()
        )

        async def ask(server: object) -> dict[str, Any]:
            del server
            return answer

        monkeypatch.setattr(petition, "_ask", ask)
        petition.start()
        error = await asyncio.wait_for(told, 10)
        assert isinstance(error, Exception)
        assert not isinstance(error, OSError)
        petition.stop()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
