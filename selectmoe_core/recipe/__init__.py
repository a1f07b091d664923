"""What a recipe says, after the recipes it extends and the overrides."""
