"""Settings, loading and inheritance, checks."""
