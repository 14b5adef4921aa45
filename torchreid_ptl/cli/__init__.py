"""One module per command; each turns a configuration into objects and runs them."""
