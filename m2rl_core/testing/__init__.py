"""Helpers for tests of m2rl and of its plugins."""
