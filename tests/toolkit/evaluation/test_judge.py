from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from rctk.attacks import ATTACKS
from rctk.data.split import Split
from rctk.evaluation.crafting import group_size
from rctk.evaluation.judge import evaluate
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, DataError, EngineError, OptionError

EPS = ThreatModel(eps=0.05)
SQUARE = ATTACKS.build("square:queries=30")


@dataclass(frozen=True, kw_only=True)
class Returns:
    """A query attack that returns what a function makes of the images."""

    name: ClassVar[str] = "returns"
    kind: ClassVar[str] = "query"
    passes: ClassVar[int] = 0

    what: Any = field(hash=False)

    def __call__(self, predict, x, y, threat, rng):
        return self.what(x)


def against(predict, x):
    """Step away from the linear model's class, far beyond any budget."""
    best = predict.w[predict(x).argmax(1)].reshape(x.shape)
    return x - 10 * np.sign(best).astype(np.float32)


@pytest.mark.parametrize(
    "threat", [EPS, ThreatModel(norm="l2", eps=0.3), ThreatModel(eps=8 / 255, grid="uint8")], ids=str
)
def test_an_attack_that_ignores_its_budget_is_held_to_it(linear, make_split, threat):
    split = make_split(linear)
    if threat.grid == "uint8":
        split = Split(name=split.name, images=np.rint(split.images * 255).astype(np.float32) / 255, labels=split.labels)
    result = evaluate(linear, split, Returns(what=lambda x: against(linear, x)), threat, seed=0)
    size = result.linf if threat.norm == "linf" else result.l2
    assert size.max() <= threat.eps + 1e-6
    assert size.max() > threat.eps * 0.9
    assert result.adversarial.min() >= 0
    assert result.adversarial.max() <= 1
    if threat.grid == "uint8":
        levels = result.adversarial * 255
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def test_an_attack_cannot_report_success_it_only_proposes(linear, make_split):
    split = make_split(linear, wrong=0)
    result = evaluate(linear, split, Returns(what=lambda x: x.copy()), EPS, seed=0)
    assert result.clean_accuracy == result.robust_accuracy == 1
    assert result.mean_linf is None
    assert result.mean_l2 is None


def test_candidates_that_are_not_finite_are_replaced_and_counted(linear, make_split):
    split = make_split(linear)

    def poison(x):
        out = against(linear, x)
        out[0, 0, 0, 0], out[1, 0, 0, 0] = np.nan, np.inf
        return out

    result = evaluate(linear, split, Returns(what=poison), EPS, seed=0)
    attacked = np.flatnonzero(result.clean)[:2]
    np.testing.assert_array_equal(result.adversarial[attacked], split.images[attacked])
    assert result.robust[attacked].all()
    assert result.notes == ("2 candidates held NaN or infinite pixels and were replaced by their originals",)


def test_misclassified_images_are_never_attacked_nor_repaired(linear, make_split):
    split = make_split(linear, wrong=5)
    seen = []
    evaluate(linear, split, Returns(what=lambda x: seen.append(x) or x), EPS, seed=0)
    np.testing.assert_array_equal(np.concatenate(seen), split.images[5:])
    result = evaluate(linear, split, SQUARE, EPS, seed=0)
    np.testing.assert_array_equal(result.adversarial[:5], split.images[:5])
    assert not result.clean[:5].any()
    assert not result.robust[:5].any()


def test_nothing_is_attacked_where_nothing_is_right(linear, make_split):
    split = make_split(linear, count=6, wrong=6)
    result = evaluate(linear, split, SQUARE, EPS, seed=0)
    assert result.clean_accuracy == result.robust_accuracy == 0
    assert result.queries.tolist() == [2] * 6


def test_the_robust_accuracy_is_that_of_the_stored_images(linear, make_split):
    split = make_split(linear)
    result = evaluate(linear, split, SQUARE, EPS, seed=0, batch_size=16)
    again = linear(result.adversarial).argmax(1) == split.labels
    np.testing.assert_array_equal(result.robust, result.clean & again)
    assert 0 < result.robust.sum() < result.clean.sum()
    broken = result.clean & ~result.robust
    assert result.mean_linf == pytest.approx(
        np.abs(result.adversarial - split.images)[broken].max(axis=(1, 2, 3)).mean()
    )
    assert result.mean_l2 == pytest.approx(
        np.sqrt(((result.adversarial - split.images)[broken] ** 2).sum(axis=(1, 2, 3))).mean(), rel=1e-5
    )


def test_queries_are_booked_to_their_images_and_sum_to_what_the_engine_counted(linear, make_split):
    split = make_split(linear)
    result = evaluate(linear, split, SQUARE, EPS, seed=0, batch_size=16)
    assert result.queries.sum() == sum(linear.batches)
    assert max(linear.batches) <= 16
    assert (result.queries[~result.clean] == 2).all()  # the clean and the last pass
    assert (result.queries[result.robust] == 32).all()
    assert (result.queries[result.clean & ~result.robust] < 32).all()


def test_queries_that_an_attack_does_not_name_are_counted_in_all(linear, make_split):
    @dataclass(frozen=True, kw_only=True)
    class Asks(Returns):
        def __call__(self, predict, x, y, threat, rng):
            predict(x[:3])
            predict(x)
            return x

    split = make_split(linear)
    result = evaluate(linear, split, Asks(what=None), EPS, seed=0)
    assert result.notes == ("3 queries were not booked to single images; only their total is known",)
    assert result.queries.sum() + 3 == sum(linear.batches)


@pytest.mark.parametrize("text", ["square:queries=40", "noise"])
def test_results_do_not_depend_on_the_batch_size(linear, make_split, text):
    split = make_split(linear)
    results = [evaluate(linear, split, ATTACKS.build(text), EPS, seed=3, batch_size=size) for size in (1, 7, 64)]
    for other in results[1:]:
        np.testing.assert_array_equal(other.adversarial, results[0].adversarial)
        np.testing.assert_array_equal(other.queries, results[0].queries)


def test_another_seed_is_another_run(linear, make_split):
    split = make_split(linear)
    first, second = (evaluate(linear, split, SQUARE, EPS, seed=seed).adversarial for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_settings_and_passes_are_recorded(linear, make_split):
    split = make_split(linear)
    result = evaluate(linear, split, ATTACKS.build("pgd:steps=5"), EPS, seed=7, batch_size=8, model=linear.module())
    assert result.attack == "pgd"
    assert result.settings["steps"] == 5
    assert result.settings["threat"] == {"norm": "linf", "eps": 0.05, "grid": "float"}
    assert (result.settings["seed"], result.settings["batch_size"]) == (7, 8)
    assert result.samples == 40
    assert result.backward_passes > 0
    assert result.forward_passes > result.backward_passes
    assert result.zero_gradient_share == 0
    assert result.seconds > 0


class Coarse:
    """An engine that rounds the logits of a model, so that it disagrees with it near the border."""

    def __init__(self, exact, step):
        self.exact, self.step = exact, step

    def __call__(self, images):
        return np.round(self.exact(images) / self.step) * self.step + np.array([0.6, 0, 0], dtype=np.float32)


def test_an_attack_goes_on_where_the_engine_is_not_fooled_yet(linear, make_split):
    engine = Coarse(linear, 0.5)
    split = make_split(linear, count=60, wrong=0)
    split = Split(name="s", images=split.images, labels=engine(split.images).argmax(1))
    attack = ATTACKS.build("pgd:steps=20")
    result = evaluate(engine, split, attack, EPS, seed=0, model=linear.module())
    # what one try that stops at the border of the model would have reached
    with torch.no_grad():
        x, y = torch.from_numpy(split.images), torch.from_numpy(split.labels)
        once = attack(linear.module(), x, y, EPS, torch.Generator().manual_seed(0)).numpy()
    left = (engine(once).argmax(1) == split.labels).sum()
    assert result.robust.sum() < left
    assert result.queries[result.clean].max() == 3  # clean, a look where the attack stopped, last


def test_gradient_attacks_need_a_torch_model(linear, make_split):
    with pytest.raises(
        AttackError, match="pgd needs gradients and got no torch model; give the float model or the twin"
    ):
        evaluate(linear, make_split(linear), ATTACKS.build("pgd"), EPS, seed=0)


def test_a_gradient_attack_gets_batches_of_the_size_that_was_asked_for(linear, make_split):
    sizes = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear.module()

        def forward(self, x):
            sizes.append(len(x))
            return self.inner(x)

    evaluate(linear, make_split(linear), ATTACKS.build("fgsm"), EPS, seed=0, batch_size=9, model=Watch())
    assert sizes == [9, 9, 9, 8]


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.1])
def test_images_outside_their_range_are_refused(linear, make_split, bad):
    split = make_split(linear)
    split.images[3, 0, 0, 0] = bad
    with pytest.raises(DataError, match=r"random:test: expected float32 images in \[0, 1\]"):
        evaluate(linear, split, SQUARE, EPS, seed=0)


def test_images_of_another_type_are_refused(linear, make_split):
    split = make_split(linear)
    other = Split(name="s", images=split.images.astype(np.float64), labels=split.labels)
    with pytest.raises(DataError, match="got float64"):
        evaluate(linear, other, SQUARE, EPS, seed=0)


def test_no_images_are_refused(linear, make_split):
    with pytest.raises(DataError, match="random:test holds no images"):
        evaluate(linear, make_split(linear).take(np.empty(0, dtype=np.int64)), SQUARE, EPS, seed=0)


@pytest.mark.parametrize("label", [3, -1])
def test_labels_outside_the_classes_are_refused(linear, make_split, label):
    split = make_split(linear)
    split.labels[7] = label
    with pytest.raises(DataError, match="the model has 3 classes; use the data set"):
        evaluate(linear, split, SQUARE, EPS, seed=0)


def test_an_engine_that_answers_nan_is_refused(linear, make_split):
    split = make_split(linear)
    limit = len(linear.batches) + 2

    def fails_later(images):
        logits = linear(images)
        if len(linear.batches) > limit:
            logits[0, 1] = np.nan
        return logits

    with pytest.raises(EngineError, match="answered NaN for 1 of "):
        evaluate(fails_later, split, SQUARE, EPS, seed=0)


def test_an_engine_that_answers_no_logits_is_refused(linear, make_split):
    split = make_split(linear)
    for bad in (lambda x: linear(x)[:, 0], lambda x: linear(x)[:-1], lambda x: linear(x)[:, :1]):
        with pytest.raises(EngineError, match=r"expected logits \(40, K\)"):
            evaluate(bad, split, SQUARE, EPS, seed=0)


def test_an_attack_that_returns_another_shape_is_refused(linear, make_split):
    with pytest.raises(AttackError, match=r"returned images \(34, 2, 3, 4\) for images \(35, 2, 3, 4\)"):
        evaluate(linear, make_split(linear), Returns(what=lambda x: x[1:]), EPS, seed=0)


@pytest.mark.parametrize("settings", [{"seed": -1}, {"seed": 0, "batch_size": 0}])
def test_settings_that_make_no_sense_are_refused(linear, make_split, settings):
    with pytest.raises(OptionError):
        evaluate(linear, make_split(linear), SQUARE, EPS, **settings)


def test_progress_is_told_about_every_image_once(linear, make_split, heard):
    evaluate(linear, make_split(linear), SQUARE, EPS, seed=0, batch_size=3, progress=heard)
    assert heard.stages == [("square", 35, [24, 11])]  # an attack that packs gets eight batches at once
    assert heard.notes == []


def test_the_split_is_not_touched(linear, make_split):
    split = make_split(linear)
    before = split.fingerprint
    evaluate(linear, split, SQUARE, EPS, seed=0)
    evaluate(linear, split, ATTACKS.build("apgd-t:steps=5"), EPS, seed=0, model=linear.module())
    assert Split(name="s", images=split.images, labels=split.labels).fingerprint == before


def test_an_attack_that_packs_never_has_more_than_a_batch_in_the_model(linear, make_split):
    sizes = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear.module()

        def forward(self, x):
            sizes.append(len(x))
            return self.inner(x)

    split = make_split(linear)
    for text in ("pgd:steps=8", "apgd-ce:steps=8", "apgd-t:steps=8"):
        sizes.clear()
        result = evaluate(linear, split, ATTACKS.build(text), EPS, seed=0, batch_size=9, model=Watch())
        assert max(sizes) <= 9
        assert sizes[:4] == [9, 9, 9, 8]
        # what is left of four batches shares fewer passes: not one small batch for each of them
        assert len(sizes) < result.forward_passes / 4


def test_an_attack_that_does_not_pack_gets_one_batch_at_a_time(linear, make_split):
    seen = []
    evaluate(linear, make_split(linear), Returns(what=lambda x: seen.append(len(x)) or x), EPS, seed=0, batch_size=9)
    assert seen == [9, 9, 9, 8]


@pytest.mark.parametrize(("image_bytes", "size"), [(12_288, 512), (602_112, 111), (10**8, 64)])
def test_how_many_images_an_attack_gets_at_once_is_limited_by_memory(image_bytes, size):
    # 32 x 32: eight batches; 224 x 224: what 64 MiB hold; larger still: one batch
    assert group_size(SQUARE, 64, image_bytes) == size
