# SPDX-License-Identifier: Apache-2.0
"""What is looked at besides the types of a word's fields: may we say it, and does what a replica says mean anything.

A replica ends a connection on which a frame comes that it does not take, and a session says again on the next one all
that was not answered. So such a frame would end one connection after the other, and nobody of this process would be
served any more. It has to be its caller's error, before it is kept or sent.
"""

from __future__ import annotations

from typing import Any, Final

from dthreading.errors import LimitExceeded, ProtocolError
from dthreading.wire import messages as wire
from dthreading.wire.codec import TAGS, decode_undisturbed, pack_call
from dthreading.wire.framing import frame
from dthreading.wire.limits import COMMAND_BYTES_MAX, ELEMENTS_MAX

__all__ = ["ATTACH_TAG", "CALL_TAG", "check_opened", "check_reply", "is_sound", "word"]

CALL_TAG: Final = 15
ATTACH_TAG: Final = 13
assert TAGS[CALL_TAG] is wire.Call
assert TAGS[ATTACH_TAG] is wire.Attach

_TTL_MS_MAX: Final = 1 << 53
"""More than any group grants, and few enough to be counted in a float."""

_OK: Final = int(wire.Status.OK)
_UNQUESTIONED_BYTES: Final = min(COMMAND_BYTES_MAX, ELEMENTS_MAX)
"""What is no longer than this breaks neither limit."""

_STATUSES: Final = frozenset(wire.Status)


def word(fields: tuple[Any, ...], *, sure: bool) -> bytes:
    """The frame of a message with a caller's values in it, its tag first. `sure`: they nest no deeper than they may.

    Raises:
        LimitExceeded: no replica would take it.
        TypeError: and UnicodeEncodeError: something in it cannot travel.

    """
    body = pack_call(fields)
    size = len(body)
    if sure and size <= _UNQUESTIONED_BYTES:
        return frame(body)
    if size > COMMAND_BYTES_MAX:
        raise LimitExceeded(f"a call of {size} bytes; COMMAND_BYTES_MAX = {COMMAND_BYTES_MAX} is the most")
    if not sure or size > ELEMENTS_MAX:
        # As a replica would look at it; what is shorter cannot have too many elements.
        try:
            decode_undisturbed(body)
        except ProtocolError as error:
            raise LimitExceeded(f"a call that no replica would take: {error}") from None
    return frame(body)


def check_opened(opened: wire.Opened) -> None:
    """Raises ProtocolError for a session or a lease that cannot be."""
    if opened.session < 1 or not 0 < opened.ttl_ms <= _TTL_MS_MAX:
        raise ProtocolError("it has opened a session that cannot be")


def check_reply(reply: wire.Reply) -> None:
    """Raises ProtocolError for a reply that means nothing."""
    if not is_sound(reply):
        raise ProtocolError("it has sent a reply that means nothing")


def is_sound(reply: wire.Reply) -> bool:
    """False: it has no known status, or is an error that is not what `errors.from_wire` takes."""
    status = reply.status
    if status == _OK:
        return True
    value = reply.value
    is_error = isinstance(value, tuple) and tuple(map(type, value)) == (str, str, tuple)
    return status in _STATUSES and (status != wire.Status.ERROR or is_error)
