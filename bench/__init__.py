"""Measuring: what the gateway costs, against nginx in the same run."""
