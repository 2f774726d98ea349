"""The signals that end a program; loaded before everything else, so it imports nothing that takes time."""

from __future__ import annotations

import signal

# Those that there are on this system.
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
