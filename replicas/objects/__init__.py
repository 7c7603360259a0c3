# SPDX-License-Identifier: Apache-2.0
"""The replica group: see ARCHITECTURE.md."""
