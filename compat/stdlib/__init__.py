# SPDX-License-Identifier: Apache-2.0
"""CPython's own suites, run against us."""
