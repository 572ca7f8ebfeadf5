"""What `make setup` runs."""

from __future__ import annotations

import sys

from tests.node import MISSING, install

if not install():
    sys.exit(f"{MISSING}. Some tests will fail for it; everything else works.")
