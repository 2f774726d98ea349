"""`python -m flds` and the command `flds`."""

from __future__ import annotations

import sys


def main() -> None:
    """Start the command line; Ctrl-C while it loads is no traceback either."""
    try:
        from flds.cli import main as start
    except KeyboardInterrupt:
        print("flds: interrupted before anything was computed", file=sys.stderr)
        sys.exit(130)
    start()


if __name__ == "__main__":
    main()
