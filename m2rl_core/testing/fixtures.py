"""pytest fixtures, loaded as a pytest plugin wherever m2rl-core is installed."""
