"""Readers of published formats: each returns a source, or None where it does not find its own files."""
