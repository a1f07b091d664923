"""The command ``selectmoe``; ``python -m selectmoe_core`` is the same."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from selectmoe_core.cli import main as command_line

        command_line()
    except KeyboardInterrupt:  # while it was imported; later it says more
        sys.exit(130)


if __name__ == "__main__":
    main()
