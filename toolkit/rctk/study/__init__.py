"""Studies: models x methods x attacks x engines from one file, as cells that are kept and found again."""
