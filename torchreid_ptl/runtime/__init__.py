"""Checkpoints, weights, precision, seeding, progress."""
