"""Numbers beside robust accuracy. Each takes what the judge measured; none measures its own success."""
