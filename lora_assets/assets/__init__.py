"""The graph: one file per stage of an adapter's life, each with its gate beside it."""

import warnings

import dagster as dg

# Partitioned asset checks are a preview in Dagster 1.13; silenced once, before the first of them.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
