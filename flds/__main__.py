"""`python -m flds` and the command `flds`."""

from __future__ import annotations

import sys


def main() -> None:
    """Start the command line; Ctrl-C while it loads is no traceback either."""
    try:
        from flds.cli import console
    except KeyboardInterrupt:
        sys.exit(130)
    console.run(_start)


def _start() -> None:
    from flds.cli.commands import main as start

    start()


if __name__ == "__main__":
    main()
