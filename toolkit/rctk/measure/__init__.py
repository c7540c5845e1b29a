"""Time and memory of engines, taken from outside the engine."""
