"""The embedded data set: questions about AWS operations, written as data versions."""
