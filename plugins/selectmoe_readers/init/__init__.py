"""``selectmoe init``: what is in a user's files, and a first recipe for them."""
