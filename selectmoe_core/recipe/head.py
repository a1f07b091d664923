"""The keys of a recipe that stand above its tables."""

from typing import Literal

from pydantic import Field, field_validator

from selectmoe_core.config import Config
from selectmoe_core.paths import STORE
from selectmoe_core.recipe.comparison import MOST_SEED


class RecipeHead(Config):
    """The keys of a recipe that belong to no stage."""

    format: Literal[1]
    """The version of this file format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)
    """The name of the run's folder: lower-case letters, digits, dots, dashes."""
    seed: int = Field(default=42, ge=0, le=MOST_SEED)
    """The seed of every stage that draws at random."""
    extends: str | None = None
    """Another recipe that this one builds on."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name == STORE:
            raise ValueError("the folder of all artifacts has this name")
        return name
