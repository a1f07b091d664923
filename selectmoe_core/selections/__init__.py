"""What can be done with a finished selection: export it, compare it with another, explain it."""
