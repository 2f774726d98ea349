"""`python -m flds`."""

from flds.cli import main

if __name__ == "__main__":
    main()
