# SPDX-License-Identifier: Apache-2.0
"""Another package's own test suite, with `threading` and `queue` swapped for that package's modules only."""
