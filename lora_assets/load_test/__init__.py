"""Load on a server, and what it adds up to."""
