"""Results -> files, pages, pictures."""
