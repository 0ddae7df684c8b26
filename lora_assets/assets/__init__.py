"""The graph: one file per stage of an adapter's life, each with its gate beside it."""
