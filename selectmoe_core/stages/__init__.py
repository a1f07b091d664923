"""The stages: what each reads and writes, and how one node of a plan is carried out."""
