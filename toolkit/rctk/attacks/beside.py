"""A torch model with another one beside it, for attacks that drive two models apart."""

from __future__ import annotations

from torch import Tensor, nn

from rctk_kernels.errors import AttackError


class Beside(nn.Module):
    """Behaves like ``model``; attacks on differences find ``reference`` next to it.

    Any other attack runs on it as on ``model`` alone.

    Attributes:
        model: The model under attack.
        reference: The model that must not notice.
    """

    def __init__(self, model: nn.Module, reference: nn.Module) -> None:
        super().__init__()
        self.model, self.reference = model, reference
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``model``."""
        logits: Tensor = self.model(images)
        return logits


def reference_of(model: nn.Module, attack: str) -> nn.Module:
    """Return the reference of ``model``; :class:`AttackError` where it has none."""
    reference = getattr(model, "reference", None)
    if isinstance(reference, nn.Module):
        return reference
    raise AttackError(
        f"{attack} drives two models apart and got one; attack two forms, such as --on float --on engine, or wrap the "
        "model with rctk.attacks.beside.Beside"
    )
