# SPDX-License-Identifier: Apache-2.0
"""The replicated state: what each entry of the log does to sessions, lanes and objects, on every replica alike."""
