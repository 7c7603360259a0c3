# SPDX-License-Identifier: Apache-2.0
"""SimpleQueue, whose put may be called in the middle of itself. Users import it from `dthreading.queue`."""

from __future__ import annotations

import logging
import threading as _threading
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from dthreading import runtime
from dthreading.errors import ItemUnreadable
from dthreading.proxy import Proxy, timeout_in_seconds
from dthreading.session.calls import GET, GET_NOWAIT, PUT_SIMPLE, READ
from dthreading.wire.values import decode_item, encode_item

if TYPE_CHECKING:
    from dthreading.wire.values import Serializer

__all__ = ["SimpleQueue"]

T = TypeVar("T")

logger = logging.getLogger("dthreading")


def read_item(queue: Proxy, body: bytes, serializer: Serializer | None) -> Any:
    """The item that was taken out of `queue`. Whatever is wrong with it, its bytes are not lost."""
    try:
        return decode_item(body, serializer)
    except Exception as error:
        what = f"an item of {len(body)} bytes was taken from {queue._proxy_target} and cannot be read here"  # noqa: SLF001
        raise ItemUnreadable(f"{what} (its bytes are this error's `payload`): {error!r}", body) from error


class _Outbox(_threading.local):
    """What this thread is about to put into one SimpleQueue, in order. (Made per thread on first use.)"""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self.sending = False


class SimpleQueue(Proxy, Generic[T]):
    """First in, first out, without limit and without tasks.

    put() may be called in the middle of itself, by a finalizer or a signal handler: then it leaves the item to the put
    that it interrupted, which sends it after its own.

    Args:
        name: as for `dthreading.Lock`.
        serializer: as for `Queue`.

    """

    __module__ = "dthreading.queue"
    _proxy_kind: ClassVar = "SimpleQueue"
    _proxy_probe = ("qsize", ())

    def __init__(self, *, name: str | None = None, serializer: Serializer | None = None) -> None:
        self._proxy_init(name)
        self._serializer = serializer
        self._outbox = _Outbox()

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:  # noqa: ARG002
        """Put an item in. It never waits for room; `block` and `timeout` are there because Queue has them."""
        # The first statement makes no object that the garbage collector counts, so no finalizer comes before it.
        self._outbox.items.append(item)
        if not self._outbox.sending:
            self._send_all()

    def _send_all(self) -> None:
        outbox = self._outbox
        first = True
        outbox.sending = True
        failure: BaseException | None = None
        try:
            while outbox.items:
                try:
                    self._send(outbox.items.popleft())
                except Exception as error:
                    if first:
                        failure = error  # of the item that this call was given
                    else:
                        logger.exception("an item that a finalizer or signal handler put into %r", self._proxy_target)
                first = False
        finally:
            outbox.sending = False
        if failure is not None:
            raise failure

    def _send(self, item: T) -> None:
        arguments = (False, encode_item(item, self._serializer), None, runtime.thread_token())
        self._ask("put", arguments, PUT_SIMPLE)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item out, as `Queue.get` does."""
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        seconds = timeout_in_seconds(timeout) if block else None
        waits = bool(block) and seconds != 0
        body = self._ask("get", (waits, runtime.thread_token()), GET if waits else GET_NOWAIT, seconds).value
        item: T = read_item(self, body, self._serializer)
        return item

    def put_nowait(self, item: T) -> None:
        """`put(item)`."""
        self.put(item)

    def get_nowait(self) -> T:
        """`get(block=False)`."""
        return self.get(block=False)

    def qsize(self) -> int:
        """How many items are in it at this moment."""
        return int(self._ask("qsize", (), READ).value)

    def empty(self) -> bool:
        """Whether none is in it at this moment."""
        return not self.qsize()

    def _proxy_state(self) -> dict[str, Any]:
        state = super()._proxy_state()
        state.pop("_outbox", None)
        return state

    def _proxy_revived(self, state: dict[str, Any]) -> None:
        super()._proxy_revived(state)
        self._outbox = _Outbox()

    def __repr__(self) -> str:
        size = self._peek("qsize")
        cls = type(self)
        shown = "unknown" if size is None else f"size={size}"
        return f"<{cls.__module__}.{cls.__qualname__} {self._proxy_place()}: {shown}>"
