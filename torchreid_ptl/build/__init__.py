"""Turns a configuration into objects."""
