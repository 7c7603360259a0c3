# SPDX-License-Identifier: Apache-2.0
"""What every primitive and queue is on the user's side: a proxy, which knows its name and asks the group.

A proxy settles at its first use, not when it is made: until then its namespace is open (`configure()` may follow the
import of the module that makes it), and a `Condition` may still give an unnamed lock a name.
"""

# ruff: noqa: SLF001 - proxies know each other; the underscore is for users

from __future__ import annotations

import contextlib
import gc
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from dthreading import config, inheriting, naming, runtime
from dthreading.errors import WrongGroup
from dthreading.session.calls import READ, Target
from dthreading.wire.messages import Lifetime

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.session.calls import Answer, Manner

__all__ = ["Proxy", "timeout_in_seconds"]

FOR_EVER_S = 10.0 * 365 * 24 * 3600
"""A wait that is longer than this ends with its process; it is sent without a deadline, which no timer can overflow."""


def timeout_in_seconds(timeout: float | None) -> float | None:
    """The stdlib's `timeout=None` argument: None for ever, at least 0 otherwise.

    Raises:
        OverflowError: above TIMEOUT_MAX, as in `threading`.

    """
    if timeout is None:
        return None
    if timeout > runtime.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return None if timeout > FOR_EVER_S else max(0.0, float(timeout))


class _Leash:
    """Its end is the end of its proxy, which has the only reference to it.

    When the garbage collector ends both, it runs their finalizers and those of other objects in no order, and one of
    those may use the proxy for the last time. So what ends in a collection is let go of when that is over.
    """

    __slots__ = ("__weakref__", "target")

    def __init__(self, target: Target) -> None:
        self.target = target

    def __del__(self) -> None:
        if _collecting:
            _ending.append((self.target, weakref.ref(self)))
        else:
            _let_go(self.target)


_collecting: Final[list[bool]] = []
"""Not empty while the collector runs, in whatever thread."""
_ending: Final[deque[tuple[Target, weakref.ref[_Leash]]]] = deque()


def _watch_collector(phase: str, _: object) -> None:
    if phase == "start":
        _collecting.append(True)
        return
    _collecting.clear()
    while _ending:
        target, leash = _ending.popleft()
        if leash() is None:  # else some finalizer has brought the proxy back to life
            _let_go(target)


gc.callbacks.append(_watch_collector)


def _let_go(target: Target) -> None:
    if target in inheriting.travelling:
        _lingering.append((time.monotonic(), target))
    else:
        runtime.drop(target)
    while _lingering and _lingering[0][0] + LINGER_S <= time.monotonic():
        with contextlib.suppress(IndexError):  # somebody else was faster
            runtime.drop(_lingering.popleft()[1])


LINGER_S: Final = 60.0
"""How long a private object is kept after its last proxy here has gone, if that was pickled or forked: the other side
may not have come to it yet. `Process(args=(Lock(),)).start()` keeps nothing of its arguments once the child runs."""

_lingering: Final[deque[tuple[float, Target]]] = deque()


class _Shown:
    """A read-only attribute that gives way when a program sets one of that name, as subclasses in the wild do."""

    def __get__(self, proxy: Proxy | None, owner: type[Proxy]) -> Any:
        return self if proxy is None else proxy._proxy_target.name


class Proxy:
    """The base of all primitives and queues."""

    __slots__ = ("__weakref__", "_proxy_leash", "_proxy_settled", "_proxy_target", "_proxy_unsaid")

    _proxy_kind: ClassVar[str]
    """What the replicas call it."""
    _proxy_probe: ClassVar[tuple[str, tuple[Any, ...]]]
    """The cheapest operation that changes nothing, with its arguments."""

    _proxy_target: Target
    _proxy_unsaid: naming.Complaint | None
    _proxy_settled: bool
    _proxy_leash: _Leash

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """The name under which the group knows it."""
            ...
    else:
        name = _Shown()

    def _proxy_init(self, name: str | None, *arguments: Any) -> None:
        """Names the object under construction."""
        named = naming.name_for(self, type(self).__name__, name, configured=config.is_configured)
        self._proxy_be(named, arguments)

    def _proxy_be(self, named: naming.Name, arguments: tuple[Any, ...]) -> None:
        self._proxy_settled = False
        self._proxy_unsaid = named.complaint
        self._proxy_point_to(Target("", named.text, self._proxy_kind, arguments, int(named.lifetime)))
        if named.lifetime == Lifetime.PRIVATE:
            inheriting.remember(self)

    def _proxy_settle(self) -> None:
        """The first use. It may run in two threads at once; both do the same."""
        unsaid, self._proxy_unsaid = self._proxy_unsaid, None
        if unsaid is not None:
            unsaid.utter()
        if not self._proxy_target.namespace:
            self._proxy_target.namespace = config.bind().namespace
        self._proxy_settled = True

    def _proxy_point_to(self, target: Target) -> None:
        self._proxy_target = target
        self._proxy_leash = _Leash(target)

    def _ask(
        self,
        operation: str,
        arguments: tuple[Any, ...],
        manner: Manner,
        timeout: float | None = None,
        others: tuple[Target, ...] = (),
        kept: Callable[[Answer], object] | None = None,
    ) -> Answer:
        if not self._proxy_settled:
            self._proxy_settle()
        return runtime.client().call(
            self._proxy_target, operation, arguments, manner, timeout, others=others, kept=kept
        )

    def _peek(self, operation: str, *arguments: Any) -> Any:
        """What a read answers; None when it cannot be had, for `repr`, which must not fail."""
        try:
            return self._ask(operation, arguments, READ).value
        except Exception:  # noqa: BLE001 - whatever is wrong will be said to whoever uses the object
            return None

    def _proxy_place(self) -> str:
        """The `at 0x... name='...'` of a `repr`."""
        return f"at {id(self):#x} name={self._proxy_target.name!r}"

    # --- copies and pickles are other proxies of the same object ---------------------------------------------------

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        target = self._proxy_target
        if not target.known:
            # A private object exists once somebody has used it. It must before its name travels, since whoever finds
            # it gone may not make it anew; and whether the group is the right one is asked of the group itself.
            self._ask(*self._proxy_probe, READ)
        if target.lifetime == Lifetime.PRIVATE:
            inheriting.travelling.add(target)
        settings = config.bind()
        group = (runtime.client().cluster, settings.servers)
        described = (target.namespace, target.name, target.kind, target.arguments, target.lifetime)
        return (_revive, (type(self), group, described, self._proxy_state()))

    def _proxy_state(self) -> dict[str, Any]:
        """What the proxy itself knows besides, for its copies."""
        return dict(getattr(self, "__dict__", {}))

    def _proxy_revived(self, state: dict[str, Any]) -> None:
        """The inverse, on a proxy that ran no `__init__`."""
        if state:
            self.__dict__.update(state)

    @classmethod
    def _proxy_named(cls, named: naming.Name, arguments: tuple[Any, ...] = ()) -> Self:
        """One that gets its name from another: the lock of a Condition."""
        proxy = cls.__new__(cls)
        proxy._proxy_be(named, arguments)
        proxy._proxy_revived({})
        return proxy


def _revive(cls: type[Proxy], group: tuple[str, tuple[str, ...]], described: Any, state: dict[str, Any]) -> Proxy:
    """What a pickled proxy becomes in another process, or a copied one in this."""
    cluster, servers = group
    if servers and not config.is_configured():
        config.configure(servers=",".join(servers))
    here = runtime.client().cluster
    if here != cluster:
        raise WrongGroup(
            f"{described[2]} {described[1]!r} belongs to the group {cluster} ({', '.join(servers) or 'embedded'}), and"
            f" this process is bound to the group {here}"
        )
    namespace, name, kind, arguments, lifetime = described
    proxy = cls.__new__(cls)
    proxy._proxy_unsaid = None
    create = lifetime != Lifetime.PRIVATE
    proxy._proxy_point_to(Target(namespace, name, kind, tuple(arguments), lifetime, create=create))
    proxy._proxy_settled = True
    proxy._proxy_revived(state)
    if not create:
        inheriting.remember(proxy)
        proxy._ask(*proxy._proxy_probe, READ)  # from here on it is kept for us, whoever else lets it go
    return proxy
