"""A network trained on nothing but the classes that an engine names, to craft candidates on."""

from __future__ import annotations

from rctk.substitute.settings import SubstituteSettings
from rctk.substitute.train import Substitute, train_substitute

__all__ = ["Substitute", "SubstituteSettings", "train_substitute"]
