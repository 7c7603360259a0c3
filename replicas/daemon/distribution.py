# SPDX-License-Identifier: Apache-2.0
"""Which version is installed, and whether the package `replicas` that was found belongs to it."""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "unknown"


def version() -> str:
    """The version of the installed distribution, or "unknown" in a bare source tree."""
    from importlib import metadata  # noqa: PLC0415 - costs 15 ms that only --version and an error need

    try:
        return metadata.version("dthreading")
    except metadata.PackageNotFoundError:
        return UNKNOWN


def foreign_package() -> str | None:
    """The sentence to say when another distribution's `replicas` stands where ours should; pip permits it."""
    import replicas  # noqa: PLC0415

    found, expected = getattr(replicas, "__version__", None), version()
    if found == expected or (found is not None and expected == UNKNOWN):
        return None
    return (
        f"the package `replicas` found at {replicas.__file__} is version {found}, and the installed dthreading is"
        f" {expected}: another distribution has overwritten its files; uninstall that one and reinstall dthreading"
    )
