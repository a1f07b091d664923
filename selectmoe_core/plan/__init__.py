"""Which nodes a run needs, what names them, and what they will cost."""
