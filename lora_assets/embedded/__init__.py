"""The stand-ins of the embedded stack. Only the wiring and the demo know them."""
