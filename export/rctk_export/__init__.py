"""Bundles on disk, exporters that write them, and engines that run what was exported."""
