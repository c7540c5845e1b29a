"""What holds for every attack that queries an engine, beyond the contract of all attacks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rctk.attacks import ATTACKS
from rctk.attacks.attack import norms
from rctk.data.split import Split
from rctk.evaluation.judge import evaluate
from rctk.threat import ThreatModel
from rctk_kernels.errors import AttackError, OptionError

QUERY = ("square", "nes", "spsa", "zoo", "simba", "signhunter", "hopskipjump", "rays", "surfree")
LABELS = [name for name in QUERY if getattr(ATTACKS.load(name), "labels_only", False)]
THREATS = {"linf": ThreatModel(eps=0.1), "l2": ThreatModel(norm="l2", eps=0.6)}
CASES = [(name, norm) for name in QUERY for norm in THREATS if norm in norms(ATTACKS.load(name))]


class Linear:
    """Exact and independent of the batch. Counts what it is asked about each row."""

    def __init__(self, classes=4, shape=(1, 5, 6), seed=1, scale=1.0):
        self.w = np.random.default_rng(seed).normal(size=(classes, int(np.prod(shape)))) * scale
        self.b = -self.w.sum(axis=1) / 2  # a grey image is on every border
        self.sent = 0
        self.calls = []

    def __call__(self, x):
        assert x.dtype == np.float32
        assert x.min() >= 0
        assert x.max() <= 1
        self.sent += len(x)
        self.calls.append(len(x))
        flat = x.reshape(len(x), 1, -1).astype(np.float64)
        return ((flat * self.w).sum(axis=2) + self.b).astype(np.float32)


class Booked:
    """A predict that notes how many queries were booked to each row."""

    def __init__(self, predict, count):
        self.predict, self.booked = predict, np.zeros(count, dtype=int)

    def book(self, rows):
        self.rows = rows

    def __call__(self, x):
        assert len(self.rows) == len(x)
        np.add.at(self.booked, self.rows, 1)
        self.rows = np.empty(0)
        return self.predict(x)


def images(count, shape=(1, 5, 6), seed=0):
    return np.random.default_rng(seed).uniform(0.3, 0.7, (count, *shape)).astype(np.float32)


def run(name, norm, predict, x, y, queries=60, **settings):
    text = f"{name}:queries={queries}" + "".join(f",{key}={value}" for key, value in settings.items())
    return ATTACKS.build(text)(predict, x, y, THREATS[norm], np.random.default_rng(0))


def broken(predict, raw, x, y, norm):
    return predict(THREATS[norm].project(raw, x)).argmax(axis=1) != y


@pytest.mark.parametrize("queries", [1, 2, 3, 7, 60])
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_booked_queries_are_the_images_sent_and_never_more_than_the_budget(name, norm, queries):
    model, x = Linear(), images(9)
    y = model(x).argmax(axis=1)
    model.sent = 0
    predict = Booked(model, 9)
    run(name, norm, predict, x, y, queries)
    assert predict.booked.sum() == model.sent
    assert predict.booked.max() <= queries
    assert predict.booked.max() > 0 or (queries < 3 and name in {"nes", "spsa", "zoo"})  # a slope takes three


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_call_is_about_all_images_that_are_still_attacked(name, norm):
    model, x = Linear(scale=0.05), images(12)
    model.b += np.array([9, 0, 0, 0])  # class 0 always: nothing breaks
    model.calls = []
    run(name, norm, model, x, np.zeros(12, dtype=np.int64), 40)
    assert min(model.calls) >= 12


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_images_that_break_leave_at_once(name, norm):
    model, x = Linear(2), images(8)
    predict = Booked(model, 8)
    run(name, norm, predict, x, np.zeros(8, dtype=np.int64), 200)
    logits = model(x)
    assert (predict.booked[logits.argmax(axis=1) == 1] < 200).all()
    assert predict.booked.min() < predict.booked.max()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_order_of_the_images_does_not_matter(name, norm):
    model, x = Linear(), images(10)
    y, order = model(x).argmax(axis=1), np.random.default_rng(3).permutation(10)
    whole = run(name, norm, model, x, y)
    np.testing.assert_array_equal(run(name, norm, model, x[order], y[order]), whole[order])


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] not in {"hopskipjump", "surfree"}])
def test_the_other_images_of_the_batch_do_not_matter(name, norm):
    model, x = Linear(), images(10)
    y = model(x).argmax(axis=1)
    whole = run(name, norm, model, x, y)
    parts = [run(name, norm, model, x[rows], y[rows]) for rows in np.array_split(np.arange(10), 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_a_model_that_always_says_the_same_breaks_nowhere(name, norm):
    def constant(x):
        return np.tile(np.float32([1, 0, 0]), (len(x), 1))

    x = images(3)
    raw = run(name, norm, constant, x, np.zeros(3, dtype=np.int64))
    assert np.isfinite(raw).all()
    assert not broken(constant, raw, x, 0, norm).any()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_equal_logits_are_no_success_unless_the_argmax_says_so(name, norm):
    def ties(x):
        return np.zeros((len(x), 3), dtype=np.float32)

    x = images(4)
    right, wrong = Booked(ties, 4), Booked(ties, 4)
    run(name, norm, right, x, np.zeros(4, dtype=np.int64), 200)
    run(name, norm, wrong, x, np.array([1, 2, 1, 2]), 200)
    assert right.booked.min() >= 32  # where nothing is misclassified there is no start, after 32 tries
    assert wrong.booked.max() <= 64  # the first pack of probes, or the way into the budget from outside


@pytest.mark.parametrize("name", LABELS)
def test_attacks_on_labels_see_nothing_but_labels(name):
    model, x = Linear(), images(8)
    y, norm = model(x).argmax(axis=1), norms(ATTACKS.load(name))[0]

    def one_hot(batch):
        return np.eye(4, dtype=np.float32)[model(batch).argmax(axis=1)]

    def other_scores(batch):
        noise = np.random.default_rng(len(batch)).random((len(batch), 4)).astype(np.float32)
        return noise + 7 * one_hot(batch)

    plain = run(name, norm, model, x, y, 150)
    assert not np.array_equal(plain, x)
    np.testing.assert_array_equal(run(name, norm, one_hot, x, y, 150), plain)
    np.testing.assert_array_equal(run(name, norm, other_scores, x, y, 150), plain)


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] not in LABELS])
def test_scores_that_say_nothing_still_give_images_in_the_budget(name, norm):
    model, x = Linear(), images(6)
    y = model(x).argmax(axis=1)
    raw = run(name, norm, lambda batch: np.eye(4, dtype=np.float32)[model(batch).argmax(axis=1)], x, y)
    assert np.isfinite(raw).all()
    np.testing.assert_allclose(THREATS[norm].project(raw, x), raw, atol=1e-6)


@pytest.mark.parametrize("attributes", [{"scale": 100.0, "shift": 0.0}, {"scale": 0.01, "shift": -50.0}])
@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] != "simba"])
def test_the_scale_and_the_place_of_the_logits_hardly_matter(name, norm, attributes):
    model, x = Linear(), images(30)
    y = model(x).argmax(axis=1)

    def moved(batch):
        return (model(batch) * np.float32(attributes["scale"]) + np.float32(attributes["shift"])).astype(np.float32)

    counts = [broken(model, run(name, norm, predict, x, y, 120), x, y, norm).sum() for predict in (model, moved)]
    assert counts[0] > 0
    assert abs(int(counts[0]) - int(counts[1])) <= 2


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_logits_with_few_values_are_survived(name, norm):
    model, x = Linear(), images(20)

    def coarse(batch):
        return (np.rint(model(batch) * 4) / 4).astype(np.float16).astype(np.float32)

    y = coarse(x).argmax(axis=1)
    raw = run(name, norm, coarse, x, y, 200, **({"h": 0.1} if name == "zoo" else {}))  # else single pixels say nothing
    assert broken(coarse, raw, x, y, norm).sum() >= 4


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_an_engine_that_rounds_its_input_is_still_attacked(name, norm):
    model = Linear(scale=3)
    x = (np.rint(images(20) * 255) / 255).astype(np.float32)

    def rounded(batch):
        return model((np.rint(batch * 255) / 255).astype(np.float32))

    y = rounded(x).argmax(axis=1)
    plain, coarse = (broken(f, run(name, norm, f, x, y, 200), x, y, norm).sum() for f in (model, rounded))
    assert coarse >= max(4, plain - 3)


@pytest.mark.parametrize("name", ["nes", "spsa", "zoo"])
def test_probes_below_what_the_engine_resolves_say_nothing(name):
    model = Linear(scale=3)
    x = (np.rint(images(20) * 255) / 255).astype(np.float32)

    def rounded(batch):
        return model((np.rint(batch * 255) / 255).astype(np.float32))

    y = rounded(x).argmax(axis=1)
    width = {"nes": "sigma", "spsa": "delta", "zoo": "h"}[name]
    found = {
        quantum: broken(
            rounded, run(name, "linf", rounded, x, y, 200, quantum=quantum, **{width: 1e-4}), x, y, "linf"
        ).sum()
        for quantum in ("0", "1/255")
    }
    assert found["0"] <= 1
    assert found["1/255"] >= 4


@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] != "square"])
def test_on_the_grid_of_a_camera_only_levels_are_queried(name, norm):
    model, queried = Linear(), []

    def predict(batch):
        queried.append(batch * 255)
        return model(batch)

    threat = ThreatModel(norm=norm, eps=THREATS[norm].eps, grid="uint8")
    x = (np.rint(images(6) * 255) / 255).astype(np.float32)
    y = model(x).argmax(axis=1)
    raw = ATTACKS.build(f"{name}:queries=60")(predict, x, y, threat, np.random.default_rng(0))
    for levels in (*queried, raw * 255):
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 7), (3, 9, 2), (2, 4, 4)], ids=str)
@pytest.mark.parametrize(("name", "norm"), [case for case in CASES if case[0] != "square"])
def test_odd_shapes_and_two_classes(name, norm, shape):
    model, x = Linear(2, shape), images(3, shape)
    y = model(x).argmax(axis=1)
    assert run(name, norm, model, x, y).shape == x.shape
    assert run(name, norm, model, x[:1], y[:1]).shape == (1, *shape)
    assert run(name, norm, model, x[:0], y[:0]).shape == (0, *shape)


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_judge_leaves_images_that_are_wrong_already(name, norm):
    model, x = Linear(), images(12)
    labels = model(x).argmax(axis=1)
    labels[::3] = (labels[::3] + 1) % 4
    split = Split(name="own", images=x, labels=labels)
    result = evaluate(model, split, ATTACKS.build(f"{name}:queries=40"), THREATS[norm], seed=0)
    np.testing.assert_array_equal(result.adversarial[::3], x[::3])
    assert (result.queries[::3] == 2).all()
    assert not any("not booked" in note for note in result.notes)


@pytest.mark.parametrize(("name", "norm"), [("rays", "l2"), ("surfree", "linf"), ("hopskipjump", "l1")])
def test_a_norm_that_the_attack_does_not_know_is_refused(name, norm):
    model, x = Linear(), images(2)
    with pytest.raises(AttackError, match=f"{name} runs in .*, got {norm}"):
        ATTACKS.build(name)(model, x, model(x).argmax(1), ThreatModel(norm=norm, eps=0.5), np.random.default_rng(0))


@pytest.mark.parametrize(
    "text",
    [
        "nes:queries=0", "nes:pairs=0", "nes:sigma=0", "nes:momentum=1", "nes:step=-1", "nes:quantum=-1/255",
        "spsa:samples=1", "spsa:delta=0", "spsa:queries=0", "zoo:coordinates=0", "zoo:h=0", "zoo:space=-1",
        "simba:frequencies=0", "simba:frequencies=2", "simba:step=0", "simba:basis=wavelet", "signhunter:queries=0",
        "rays:tolerance=0", "rays:tolerance=1.5", "rays:quantum=nan", "hopskipjump:evaluations=0",
        "hopskipjump:queries=0", "surfree:angles=0", "surfree:frequencies=0", "surfree:tolerance=inf",
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(text):
    with pytest.raises(OptionError, match=text.split(":")[0]):
        ATTACKS.build(text)


def test_stronger_attacks_break_more_of_a_trained_net(digits, predict_with):
    threat = ThreatModel(eps=0.15)
    robust = {
        text: evaluate(predict_with(digits.robust), digits.split, ATTACKS.build(text), threat, seed=0).robust_accuracy
        for text in ("noise", *(f"{name}:queries=400" for name, norm in CASES if norm == "linf"), "square:queries=20")
    }
    noise, few = robust.pop("noise"), robust.pop("square:queries=20")
    assert max(robust.values()) < noise - 0.1
    assert robust["square:queries=400"] < few
    assert robust["rays:queries=400"] < robust["nes:queries=400"] + 0.1  # labels cost little where scores are smooth


def test_they_run_without_torch():
    code = """
import sys
for name in ("torch", "onnx", "scipy", "matplotlib", "torchattacks"):
    sys.modules[name] = None
import numpy as np
from rctk.attacks import ATTACKS
from rctk.attacks.attack import norms
from rctk.data.split import Split
from rctk.evaluation.query_curve import query_curve
from rctk.threat import ThreatModel
w = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
predict = lambda x: x.reshape(len(x), -1) @ w
images = np.random.default_rng(1).random((20, 3, 4, 4)).astype(np.float32)
split = Split(name="s", images=images, labels=predict(images).argmax(1))
for name in ("nes", "spsa", "zoo", "simba", "signhunter", "rays", "hopskipjump", "surfree"):
    attack = ATTACKS.build(name + ":queries=150")
    curve = query_curve(predict, split, attack, ThreatModel(norm=norms(attack)[0], eps=1), seed=0)
    assert curve.points().robust[0] == 1 and curve.points().robust[-1] < 1, name
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
