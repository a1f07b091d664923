"""The offline rehearsal: generated instruction data, its questions, and two nano models."""
