"""The stages: what each reads and writes, and what executing a node of a plan needs."""
