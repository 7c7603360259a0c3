# SPDX-License-Identifier: Apache-2.0
"""From the settings to an endpoint to dial: looks names up in a thread of its own, and starts the embedded group.

Nothing here blocks its caller, which is the thread that keeps the lease alive. What a name meant is used once: a name
is looked up anew for each dial, so an address that has moved is never dialed for ever. While a name server hangs the
other servers are tried; what it says in the end is used when its name's turn comes again.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from dthreading import embedded, resolve
from dthreading.asking import read_secret
from dthreading.errors import DThreadingError, GroupUnreachable
from dthreading.route import Route

if TYPE_CHECKING:
    from collections.abc import Callable

    from dthreading.config import Settings
    from dthreading.resolve import Endpoint

__all__ = ["Finder"]

LOOK_UP_S: Final = 2.0
"""How long one look-up keeps the other servers waiting: as long as a replica that does not answer (see `dialing`)."""

_Found: TypeAlias = "deque[list[Endpoint] | DThreadingError]"
"""Takes the one outcome of a look-up."""


class Finder:
    """The ways to the group.

    Args:
        settings: the servers, or the embedded group, and the secret.
        luck: numbers in [0, 1).
        wake: called from another thread when a look-up has ended.

    """

    def __init__(self, settings: Settings, luck: Callable[[], float], wake: Callable[[], None]) -> None:
        self._settings = settings
        self._wake = wake
        self._starter = embedded.Starter() if settings.embedded else None
        self.route = Route(settings.servers or (embedded.server_name(),), luck)
        self.name = ""
        """The server that was tried last."""
        self._looking_up = ""
        self._give_up_at = 0.0
        self._running: dict[str, _Found] = {}
        """Look-ups by name, also those that were given up for now."""

    def dial_at(self) -> float:
        """When `next` is due. The end of a look-up wakes the caller as well."""
        if self._looking_up and not self._running[self._looking_up]:
            return self._give_up_at
        return self.route.dial_at

    def next(self, now: float) -> tuple[Endpoint, bytes | None] | None:
        """Where to dial now, and the secret for it; None: not known yet.

        Raises:
            GroupUnreachable: the name means nothing, or others may enter the folder of the embedded group.
            NotAuthenticated: there is no secret that could be used.

        """
        if self._looking_up:
            endpoint = self._looked_up(now)
        else:
            self.name = self.route.next(now)
            if self._starter is not None:
                embedded.guard(self.name)
            endpoint = resolve.numeric(self.name)
            if endpoint is None:
                self._look_up(self.name, now)
        if endpoint is None:
            return None
        return endpoint, read_secret(self._settings.secret) if endpoint.guarded else None

    def failed(self, now: float) -> None:
        """The server that `next` gave could not be reached, or does not serve.

        Raises:
            GroupUnreachable: the embedded group cannot be started; the sentence says why.

        """
        self.route.failed(self.name, now)
        if self._starter is not None:
            self._starter.ensure(now)
            self.route.dial_at = now + embedded.RETRY_S

    @property
    def hint(self) -> str:
        """What is known of why nobody listens; empty, or ends a sentence."""
        return self._starter.hint if self._starter is not None else ""

    def succeeded(self) -> None:
        """The group has taken our session up there."""
        self.route.succeeded(self.name)
        if self._starter is not None:
            self._starter.found()
            self._starter.hint = ""

    def _look_up(self, name: str, now: float) -> None:
        if name not in self._running:
            found: _Found = deque()
            try:
                threading.Thread(target=self._ask, args=(name, found), name="dthreading-resolver", daemon=True).start()
            except RuntimeError as error:  # too many threads
                raise GroupUnreachable(f"looking up {name} failed: {error}") from None
            self._running[name] = found
        self._looking_up = name
        self._give_up_at = now + LOOK_UP_S

    def _ask(self, name: str, found: _Found) -> None:
        try:
            found.append(resolve.endpoints(name))
        except DThreadingError as error:
            found.append(error)
        except Exception as error:  # noqa: BLE001 - whatever a resolver raises, the name was of no use
            found.append(GroupUnreachable(f"looking up {name} failed: {error}"))
        self._wake()

    def _looked_up(self, now: float) -> Endpoint | None:
        name = self._looking_up
        if not self._running[name]:
            if now >= self._give_up_at:
                self._looking_up = ""
                raise GroupUnreachable(f"looking up {name} has taken more than {LOOK_UP_S:g} s so far")
            return None
        self._looking_up = ""
        found = self._running.pop(name).popleft()
        if isinstance(found, DThreadingError):
            raise found
        self.route.told([endpoint.name for endpoint in found[1:]])
        return found[0]
