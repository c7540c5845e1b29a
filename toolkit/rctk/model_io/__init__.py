"""Reading models in every form that users have; :mod:`rctk.checkpoint` is the front door."""
