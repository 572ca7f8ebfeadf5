"""Install the npm packages; run by `make setup`."""

from __future__ import annotations

import sys

from tests.node import MISSING, install

if not install():
    sys.exit(f"{MISSING}. Some tests will fail; everything else works.")
