# SPDX-License-Identifier: Apache-2.0
"""Private objects across a fork: the parent makes what the child will find, and the child may make it anew.

A private object lives while some session uses it. Whatever the parent has never used would be made by the child, and
end with it: `Process(target=work, args=(results,))`, join, and `results` is empty. So before a fork the parent uses all
private objects that it has. And a daemon's parent ends at once, before the child has used anything: what ended with the
parent is made anew by the child, which is the only one that still has it.

Nor may the parent let go of them at once: `Process(target=work, args=(Queue(),)).start()` leaves it no proxy, and the
child may not have been given the processor yet. So they *travel*, as those do that were pickled.
"""

# ruff: noqa: SLF001 - proxies know each other; the underscore is for users

from __future__ import annotations

import logging
import os
import weakref
from typing import TYPE_CHECKING, Final

from dthreading.session.calls import WAIT_EVENT
from dthreading.wire.messages import Lifetime

if TYPE_CHECKING:
    from dthreading.proxy import Proxy
    from dthreading.session.calls import Target

__all__ = ["remember", "travelling"]

logger = logging.getLogger("dthreading")

_private: Final[dict[int, weakref.ref[Proxy]]] = {}
"""The private proxies of this process. A plain dictionary, since each operation of it is one step in C."""

travelling: Final[weakref.WeakSet[Target]] = weakref.WeakSet()
"""Private objects on their way to another process: `proxy` keeps them for a while after their last proxy here."""


def remember(proxy: Proxy) -> None:
    """A private proxy was made or unpickled."""
    number = id(proxy)
    _private[number] = weakref.ref(proxy, lambda _: _private.pop(number, None))


def _before_fork() -> None:
    alive = _alive()
    travelling.update([proxy._proxy_target for proxy in alive])
    unused = [proxy for proxy in alive if not proxy._proxy_target.known and _is_settled(proxy)]
    if not unused:
        return
    first, *others = unused
    targets = tuple(other._proxy_target for other in others)
    try:
        # One call attaches to all. A fork must not wait a whole lease for a group that is away, so it is a timed one.
        session = first._ask(*first._proxy_probe, WAIT_EVENT, 0.0, targets).session
    except Exception:  # noqa: BLE001 - whoever uses them will hear of it
        session = 0
    for target in targets:
        target.known = session != 0
    if not session:
        logger.warning(
            "the group did not answer before a fork: of %r, and of %d more, parent and child may use two different"
            " objects", first._proxy_target, len(targets),
        )  # fmt: skip


def _after_fork_in_child() -> None:
    for proxy in _alive():
        proxy._proxy_target.known = False


def _alive() -> list[Proxy]:
    proxies = [reference() for reference in list(_private.values())]
    # Meanwhile a Condition may have given a lock its name.
    return [one for one in proxies if one is not None and one._proxy_target.lifetime == Lifetime.PRIVATE]


def _is_settled(proxy: Proxy) -> bool:
    unsaid = proxy._proxy_unsaid
    try:
        if not proxy._proxy_settled:
            proxy._proxy_settle()
    except Exception:  # noqa: BLE001 - strict naming: the user of the object will hear it again
        proxy._proxy_unsaid = unsaid
        return False
    return True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
