"""Thin typed clients of the world outside; each returns records, sets a timeout, and raises."""
