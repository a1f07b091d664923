"""How the names of data files end."""

COMPRESSED = ("", ".gz", ".zst")
JSONL = tuple(f"{kind}{packed}" for kind in (".jsonl", ".ndjson", ".json") for packed in COMPRESSED)
PARQUET = (".parquet", ".pq")
TABLES = tuple(f"{kind}{packed}" for kind in (".csv", ".tsv") for packed in COMPRESSED)
ENDINGS = {"jsonl": JSONL, "csv": TABLES, "parquet": PARQUET}
"""What the names of a reader's files end with, by the reader's name."""
