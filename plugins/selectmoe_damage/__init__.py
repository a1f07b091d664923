"""Ways to spoil an example on purpose, each with a name that warm-up and audits know."""
