"""Configuration -> objects; the only room that reads the configuration tree to build."""
