"""Builds the objects of a configuration."""
