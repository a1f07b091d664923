"""Ways to damage an example on purpose, each with a name for warm-up and audits."""
