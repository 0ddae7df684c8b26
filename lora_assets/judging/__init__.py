"""Answers, and the judge that grades them."""
