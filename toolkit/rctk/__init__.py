"""Robust compression toolkit: compress a classifier, attack what ships, gate float against deployed robustness."""

__version__ = "0.1.0"
