"""The packages of the extra `dev`: a checkout without them skips these tests, but not in CI."""

from __future__ import annotations

import os

import pytest

if "CI" not in os.environ:
    pytest.importorskip("fakeredis")
    pytest.importorskip("lupa")
