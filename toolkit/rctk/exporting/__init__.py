"""``rctk export``: a float classifier becomes a bundle of int8 files, each measured against its twin."""
