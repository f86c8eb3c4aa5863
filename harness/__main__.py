"""``python -m harness``: the crosscheck command."""

import sys


def main() -> int:
    """Run the command line and return its exit status."""
    if sys.argv[1:2] == ["plugin"]:  # starts once a test: not even argparse is needed
        from harness.plugin import plugin

        return plugin(sys.argv[2:])
    from harness import cli

    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
