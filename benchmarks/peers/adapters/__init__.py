# SPDX-License-Identifier: Apache-2.0
"""One module per benchmarked system; see template.py. PEERS_ADAPTERS names further folders of adapters."""

import os

__path__ += [folder for folder in os.environ.get("PEERS_ADAPTERS", "").split(os.pathsep) if folder]
