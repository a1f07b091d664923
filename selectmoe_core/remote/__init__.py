"""How an outputs folder lives on an object store: what is made here goes there, and back."""
