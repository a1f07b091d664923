"""What plugins offer: components, their kinds, and how they are found and checked."""
