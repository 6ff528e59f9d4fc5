"""Makes the pack importable as ``magicvideo`` for all tests."""

import pack  # noqa: F401
