"""``python -m harness``: the crosscheck command."""

from harness.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
