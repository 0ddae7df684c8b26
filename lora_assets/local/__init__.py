"""Runs in this process."""
