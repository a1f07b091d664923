"""Options of parts in tests, in a module that imports nothing heavy."""

from selectmoe_core import Config


class Options(Config):
    """Do something simple."""
