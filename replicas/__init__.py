# SPDX-License-Identifier: Apache-2.0
"""The replica group: see ARCHITECTURE.md."""

__version__ = "0.1.0"
"""That of the distribution `dthreading`, which both packages belong to: the server compares them before it starts."""
