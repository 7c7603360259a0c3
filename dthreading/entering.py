# SPDX-License-Identifier: Apache-2.0
"""`with`, for all that is acquired and released: the only home of what an interrupt or an error may not do there.

An interrupt between a grant and the caller's next line gives the grant back, and still reaches the caller; what the
body raised is never hidden by what the release raises.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from dthreading.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["STRIKES_MAX", "Entered"]

logger = logging.getLogger("dthreading")

STRIKES_MAX: Final = 1000
"""More often than that nobody presses Ctrl-C within a lease: what strikes so often will not stop."""


class Entered(Proxy):
    """A proxy that is a context manager: acquired on entry, released on exit."""

    __slots__ = ()

    def acquire(self) -> bool:
        """Take it; True once it is ours."""
        raise NotImplementedError

    def release(self) -> None:
        """Give it back."""
        raise NotImplementedError

    def _check_entered(self) -> None:
        """Raises what the end of `with` is to raise instead of releasing."""

    def _give_back(self, release: Callable[[], object] | None = None) -> None:
        """Release after an interrupt, which is on its way to the caller and must arrive there."""
        try:
            (self.release if release is None else release)()
        except Exception:
            logger.warning("%r could not be given back after an interrupt", self._proxy_target, exc_info=True)

    def __enter__(self) -> bool:
        entered = False
        try:
            entered = self.acquire()
            # The return, too, is inside the `try`: an interrupt that is raised here must not leave the lock held. (Of a
            # constant it would not be: the compiler leaves the `try` before it loads one.)
            return entered  # noqa: RET504
        except BaseException:
            if entered:
                self._give_back()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # No deeper in calls than on the way in: a recursion that could acquire must not end in the release.
            self._check_entered()
            self.release()
        except Exception:
            if kind is None:
                raise
            logger.warning("%r was not released properly after an error in its body", self._proxy_target, exc_info=True)
