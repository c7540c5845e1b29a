import numpy as np
import pytest

from rctk.data.split import Split
from rctk.evaluation.subjects import Subject
from rctk.progress import Silent
from rctk.stress.condition import Condition
from rctk.stress.run import stress
from rctk.stress.summary import cell_differences, overall_lines, record_values, summarise, summarise_tests, table_rows
from rctk_kernels.errors import DataError, EngineError, OptionError


class Threshold:
    """Class 1 where the only pixel is at least a threshold."""

    def __init__(self, threshold):
        self.threshold, self.batches = threshold, []

    def __call__(self, images):
        self.batches.append(len(images))
        above = images[:, 0, 0, 0] - np.float32(self.threshold)
        return np.stack([-above, above], axis=1)


def condition(*shifts, test="fog", group="weather", level="1"):
    def make(variant, images, indices):
        return np.clip(images + np.float32(shifts[variant]), 0, 1)

    return Condition(test=test, group=group, level=level, variants=len(shifts), origin="generated", make=make)


@pytest.fixture
def split():
    images = np.array([0.1, 0.4, 0.6, 0.9], dtype=np.float32).reshape(4, 1, 1, 1)
    return Split(name="pixels:test", images=images, labels=np.array([0, 0, 1, 1]))


@pytest.fixture
def subjects():
    return [Subject(name="float", predict=Threshold(0.5)), Subject(name="engine", predict=Threshold(0.55))]


def test_accuracy_under_a_known_shift(split, subjects):
    # +0.15: 0.1, 0.4, 0.6, 0.9 become 0.25, 0.55, 0.75, 1; float then takes 0.55 for class 1, the engine too
    # -0.15: 0, 0.25, 0.45, 0.75; both lose 0.6
    result = stress(subjects, split, [condition(0.13), condition(-0.15, level="2")], batch_size=3)
    assert [cell.survived("float").tolist() for cell in result.cells] == [
        [True, False, True, True],
        [True, True, False, True],
    ]
    assert [cell.survived("engine").tolist() for cell in result.cells] == [[True] * 4, [True, True, False, True]]
    assert result.clean["engine"].all()
    assert result.samples == 4


def test_an_image_must_survive_every_variant_and_itself(split):
    labels = np.array([0, 1, 1, 1])  # 0.4 is wrong as it is
    result = stress(
        [Subject(name="float", predict=Threshold(0.5))],
        Split(name="pixels:test", images=split.images, labels=labels),
        [condition(0.2, 0.3, -0.15)],
        batch_size=10,
    )
    (cell,) = result.cells
    # 0.1 stays below, 0.4 rises above (right by luck), falls below in the last; 0.6 falls below in the last
    assert cell.right["float"].tolist() == [[True] * 4, [True] * 4, [True, False, False, True]]
    assert cell.accuracy("float") == 0.5
    assert cell.mean_accuracy("float") == pytest.approx(10 / 12)
    lucky = stress(
        [Subject(name="float", predict=Threshold(0.5))],
        Split(name="pixels:test", images=split.images, labels=labels),
        [condition(0.2, 0.3)],
        batch_size=10,
    ).cells[0]
    assert lucky.survived("float").tolist() == [True, False, True, True]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_do_not_change_the_result_and_are_never_larger(split, subjects, batch_size):
    result = stress(subjects, split, [condition(0.13, -0.15)], batch_size=batch_size)
    assert result.cells[0].right["float"].tolist() == [[True, False, True, True], [True, True, False, True]]
    assert max(subjects[0].predict.batches) <= batch_size
    assert sum(subjects[0].predict.batches) == 3 * 4  # clean and two variants


def test_progress_hears_of_every_variant(split, subjects):
    class Told(Silent):
        done = 0

        def stage(self, name, total=None):
            self.total = total
            context = super().stage(name, total)
            context.enter_result = lambda n: setattr(self, "done", self.done + n)
            return context

    told = Told()
    stress(subjects, split, [condition(0.1, 0.2), condition(0.3)], batch_size=4, progress=told)
    assert (told.total, told.done) == (3, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda v, x, i: x + 1,
        lambda v, x, i: x.astype(np.float64),
        lambda v, x, i: x[:, :, :, :0],
        lambda v, x, i: x * np.float32("nan"),
    ],
)
def test_a_condition_that_makes_no_images_is_refused(split, subjects, make):
    bad = Condition(test="bad", group="x", level="1", variants=1, origin="generated", make=make)
    with pytest.raises(DataError, match="bad 1 made"):
        stress(subjects, split, [bad], batch_size=4)


def test_answers_that_are_no_logits_are_refused(split):
    with pytest.raises(EngineError):
        stress([Subject(name="x", predict=lambda x: np.zeros(len(x)))], split, [condition(0.1)], batch_size=4)


def test_subjects_and_conditions_are_needed(split, subjects):
    with pytest.raises(OptionError, match="different names"):
        stress([subjects[0], subjects[0]], split, [condition(0.1)], batch_size=4)
    with pytest.raises(OptionError, match="no condition"):
        stress(subjects, split, [], batch_size=4)


def test_notes_say_what_was_generated(split, subjects):
    result = stress(subjects, split, [condition(0.1), condition(0.1, test="frost")], batch_size=4)
    assert "(2 types)" in result.notes[0]
    assert "procedural" in result.notes[1]
    assert stress(subjects, split, [condition(0.1, test="occlusion", group="occlusion")], batch_size=4).notes == ()


@pytest.fixture
def result(split, subjects):
    conditions = [
        condition(0.13, level="1"),
        condition(0.3, level="2"),
        condition(-0.15, test="snow", level="1"),
        condition(0.13, test="saturate", group="held out"),
        condition(0.13, -0.15, test="occlusion", group="occlusion", level="10 % side"),
    ]
    return stress(subjects, split, conditions, batch_size=4)


def test_mean_accuracies_by_hand(result):
    # fog: float 3/4 and 3/4 (0.4 + 0.3 = 0.7), engine 1 and 3/4; snow: both 3/4
    assert [cell.accuracy("float") for cell in result.cells] == [0.75, 0.75, 0.75, 0.75, 0.5]
    assert [cell.accuracy("engine") for cell in result.cells] == [1.0, 0.75, 0.75, 1.0, 0.75]
    floats, engine = (summarise(result, name, "float", seed=0) for name in ("float", "engine"))
    assert floats.mpc.value == 0.75
    assert engine.mpc.value == pytest.approx((0.875 + 0.75) / 2)  # per type first, then over types
    assert engine.difference.value == pytest.approx(0.0625)
    assert engine.mce == pytest.approx((0.25 / 0.5 + 1) / 2)
    assert (floats.mce, floats.difference) == (None, None)
    assert (floats.held_out, engine.held_out) == (0.75, 1.0)


def test_rows_of_tests_hold_levels_and_paired_differences(result):
    rows = {row.test: row for row in summarise_tests(result, "engine", "float", seed=0)}
    assert rows["fog"].accuracy == (1.0, 0.75)
    assert rows["fog"].mean.value == 0.875
    assert rows["fog"].difference.value == 0.125
    assert rows["fog"].difference.low >= 0  # the engine loses no image that float keeps
    assert rows["snow"].difference == (0.0, 0.0, 0.0)
    assert list(rows) == ["fog", "snow", "saturate", "occlusion"]
    assert all(row.difference is None for row in summarise_tests(result, "float", "float", seed=0))


def test_conditions_are_paired_and_corrected_together(result):
    each = cell_differences(result, "engine", "float")
    assert [(one.paired.float_only, one.paired.engine_only) for one in each] == [(0, 1), (0, 0), (0, 0), (0, 1), (0, 1)]
    assert [one.adjusted_p for one in each] == [1.0] * 5


def test_a_condition_that_breaks_the_engine_alone_is_counted():
    images = np.full((200, 1, 1, 1), 0.4, dtype=np.float32)
    many = Split(name="pixels:test", images=images, labels=np.zeros(200, dtype=np.int64))
    pair = [Subject(name="float", predict=Threshold(0.6)), Subject(name="engine", predict=Threshold(0.5))]
    found = stress(pair, many, [condition(0.15), condition(0.0, level="2")], batch_size=64)
    lines = overall_lines(found, ["float", "engine"], seed=0)
    assert "engine against float: worse under 1 and better under 0 of 2 conditions" in lines[-1]
    assert summarise(found, "engine", "float", seed=0).mce is None  # float loses nothing, so the ratio has no value


def test_table_and_lines_name_every_number(result):
    rows = table_rows(result, ["float", "engine"], seed=0)
    assert rows[0][:4] == ("fog", "generated", "75.0 75.0", "100.0 75.0")
    assert rows[0][4:6] == ("75.0%", "87.5%")
    assert rows[0][6].startswith("+12.5 (")
    first, second, _ = overall_lines(result, ["float", "engine"], seed=0)
    assert first.startswith("float: mPC 75.0% (")
    assert "mCE 75.0% of float" in second
    assert "held-out types 100.0%" in second


def test_record_values_hold_every_condition(result):
    own = record_values(result, "engine", "float", seed=0)
    assert own["samples"] == 4
    assert own["mce_baseline"] == "float"
    assert [cell["accuracy"] for cell in own["cells"]] == [1.0, 0.75, 0.75, 1.0, 0.75]
    assert own["cells"][4]["mean_accuracy"] == 0.875
    assert own["paired"][0]["engine_only"] == 1
    base = record_values(result, "float", "float", seed=0)
    assert (base["mce"], base["mce_baseline"]) == (None, None)
    assert "paired" not in base


def test_without_corruptions_there_is_no_mpc(split, subjects):
    found = stress(subjects, split, [condition(0.1, test="occlusion", group="occlusion")], batch_size=4)
    assert summarise(found, "engine", "float", seed=0) == (None, None, None, None)
    assert len(overall_lines(found, ["float", "engine"], seed=0)) == 1
    with pytest.raises(OptionError, match="subject"):
        summarise(found, "twin", "float", seed=0)


def test_no_difference_has_no_sign_of_a_loss(split):
    same = [Subject(name=name, predict=Threshold(0.5)) for name in ("float", "engine")]
    rows = table_rows(stress(same, split, [condition(0.13)], batch_size=4), ["float", "engine"], seed=0)
    assert rows[0][-1] == "+0.0 (+0.0 to +0.0)"
