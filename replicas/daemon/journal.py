# SPDX-License-Identifier: Apache-2.0
"""How a replica speaks to its operator: log lines (plain or JSON) on standard error, and to systemd by sd_notify.

The only place that formats a log record. Strangers can make a replica log, so lines about them pass `Muffler`: bad
bytes arriving a thousand times a second must not fill a disk.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

__all__ = ["Muffler", "log", "notify_supervisor", "open_journal", "say"]

log: Final = logging.getLogger("dthreading.server")

MUFFLED_BURST: Final = 10
"""Lines about strangers that are written in full within one `MUFFLED_PERIOD_S`."""

MUFFLED_PERIOD_S: Final = 10.0
"""After this the next line says how many were left out."""


PATIENCE_MS: Final = 50
"""How long a line waits for a reader that is slow, a quarter of a heartbeat's pace; the lines behind it do not wait."""

PIECE_BYTES: Final = 4096
"""A pipe that has any room takes so much at once (PIPE_BUF)."""


class Muffler:
    """Lets a burst of warnings through, counts the rest, and says the count with the next line of a new period."""

    __slots__ = ("_left_out", "_period_ends_s", "_written")

    def __init__(self) -> None:
        self._period_ends_s = 0.0
        self._written = 0
        self._left_out = 0

    def warn(self, now_s: float, text: str) -> None:
        """Write `text`, or count it as left out."""
        if now_s >= self._period_ends_s:
            self._period_ends_s = now_s + MUFFLED_PERIOD_S
            if self._left_out:
                log.warning("%d more lines like the following were left out", self._left_out)
            self._written = self._left_out = 0
        if self._written >= MUFFLED_BURST:
            self._left_out += 1
            return
        self._written += 1
        log.warning("%s", text)


class _Plain(logging.Formatter):
    """`2026-11-20T12:00:00.123Z WARNING replica 2: text`, one line whatever the text holds."""

    converter = staticmethod(time.gmtime)

    def __init__(self, replica: int) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03dZ %(levelname)s replica {replica}: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in logging
        return super().formatMessage(record).replace("\n", "\\n")


class _Json(logging.Formatter):
    """One object a line: time (seconds since 1970), level, replica, text, and the traceback where there is one."""

    def __init__(self, replica: int) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "replica": self._replica,
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Writer:
    """Writes to a descriptor, and waits for nobody: a supervisor that hangs, a pager or a terminal that was stopped
    leaves a pipe full, and a replica that waited for its reader would be heard by no other replica.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._clogged = False
        self._torn = False

    def write(self, text: str) -> bool:
        """Whether there was room for all of it. What a full pipe cut off is ended by the next line break."""
        rest = memoryview(("\n" * self._torn + text).encode(self._encoding, "backslashreplace"))
        while rest:
            if not self._room.poll(0 if self._clogged else PATIENCE_MS):
                self._clogged = True
                return False
            self._clogged = False
            rest = rest[os.write(self._descriptor, rest[:PIECE_BYTES]) :]
            self._torn = bool(rest)
        return True


class _Handler(logging.Handler):
    """Puts what `_Writer` could not write out of the way, and says how much it was."""

    def __init__(self, writer: _Writer) -> None:
        super().__init__()
        self._writer = writer
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
            if self._left_out:
                about = ("%d lines were left out, since nobody read what stood here", (self._left_out,))
                note = log.makeRecord(log.name, logging.WARNING, "", 0, *about, None)
                text = f"{self.format(note)}\n{text}"
            self._left_out = 0 if self._writer.write(text) else self._left_out + 1
        except Exception:  # noqa: BLE001 - as every handler does: it is reported, if that is possible
            self.handleError(record)


def _writer_to(stream: TextIO | None) -> _Writer | None:
    """None where there is no descriptor: a stream of somebody else's making, or none at all."""
    try:
        return None if stream is None else _Writer(stream.fileno(), stream.encoding)
    except (OSError, ValueError):
        return None


def say(text: str, stream: TextIO | None) -> None:
    """One line for whoever started us, who may have gone away since or never read it; that is no reason to stop."""
    writer = _writer_to(stream)
    with contextlib.suppress(OSError):
        if writer is not None:
            writer.write(f"{text}\n")
        elif stream is not None:
            print(text, file=stream, flush=True)


def open_journal(*, replica: int, level: str, as_json: bool) -> None:
    """Send the server's records to standard error."""
    writer = _writer_to(sys.stderr)
    handler = logging.StreamHandler(sys.stderr) if writer is None else _Handler(writer)
    handler.setFormatter(_Json(replica) if as_json else _Plain(replica))
    root = logging.getLogger("dthreading")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
    # asyncio's own warnings (a callback that raised) belong in the same stream.
    logging.getLogger("asyncio").handlers[:] = [handler]


def notify_supervisor(environment: Mapping[str, str], state: str) -> None:
    """Tell systemd, when it asked: READY=1, STOPPING=1. Its absence or failure is no concern of ours."""
    path = environment.get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@":
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as supervisor:
            supervisor.sendto(state.encode(), address)
    except OSError as error:
        log.debug("sd_notify to %s failed: %s", path, os.strerror(error.errno or 0))
