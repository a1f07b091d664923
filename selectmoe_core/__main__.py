"""``python -m selectmoe_core``: the same as ``selectmoe``."""

from selectmoe_core.cli import main

if __name__ == "__main__":
    main()
