"""Data sets, and what is cut out of them."""
