"""Tables, plots and one self-contained page from records; nothing is computed that a record does not hold."""
