"""A flag or a value that cannot be used is refused on one line, before any work."""

from __future__ import annotations

import pytest

EXPORT = ("export", "MODEL", "--calibration", "digits:train", "-o", "out")
ATTACK = ("attack", "BUNDLE", "--data", "DIGITS")
BENCH = ("bench", "BUNDLE")
COMPARE = ("compare", "BUNDLE", "--data", "DIGITS")
TRAIN = ("train", "--arch", "mlp", "--data", "digits:train", "-o", "out.pt")
INT8 = ("attack", "INT8", "--data", "DIGITS")


CASES = [
    # what the parser finds
    (("exprt",), ["unknown command 'exprt'", "did you mean 'export'", "doctor", "`rctk --help`"]),
    (("--foo",), ["unknown option --foo", "`rctk --help`"]),
    (("export",), ["MODEL is missing", "`rctk export --help`"]),
    (("export", "MODEL"), ["--calibration is missing", "`rctk export --help`"]),
    (("train", "--arch", "mlp"), ["--data is missing"]),
    (("attack", "BUNDLE", "--data"), ["--data needs a value"]),
    (("attack", "BUNDLE"), ["--data is missing", "`rctk attack --help`"]),
    (("report",), ["PATHS is missing"]),
    ((*EXPORT, "--forse"), ["unknown option: --forse", "Did you mean --force?"]),
    ((*EXPORT, "more"), ["unexpected 'more'"]),
    (("doctor", "more"), ["unexpected 'more'", "`rctk doctor --help`"]),
    ((*ATTACK, "--samples", "x"), ["--samples", "'x' is not a whole number"]),
    ((*BENCH, "--batch", "1.5"), ["--batch", "'1.5' is not a whole number"]),
    # budgets
    ((*ATTACK, "--eps", "-1"), ["eps must be a positive number", "-1"]),
    ((*ATTACK, "--eps", "-8/255"), ["eps must be a positive number"]),
    ((*ATTACK, "--eps", "abc"), ["--eps", "'abc' is not a number", "8/255"]),
    ((*ATTACK, "--eps", "8/0"), ["--eps", "'8/0' is not a number"]),
    ((*ATTACK, "--eps", "2"), ["larger than 1", "2/255"]),
    ((*ATTACK, "--eps", "0"), ["eps must be a positive number"]),
    ((*ATTACK, "--eps", "inf"), ["eps must be a positive number"]),
    ((*ATTACK, "--eps"), ["--eps needs a value"]),
    ((*ATTACK, "--norm", "l3"), ["--norm", "linf", "l2"]),
    ((*COMPARE, "--max-drop", "2"), ["max-drop is a share", "0.02"]),
    ((*COMPARE, "--max-drop", "-0.1"), ["max-drop is a share"]),
    ((*COMPARE, "--max-drop", "2%"), ["--max-drop", "'2%' is not a number"]),
    ((*EXPORT, "--check-eps", "-1"), ["eps must be a positive number"]),
    ((*EXPORT, "--check-eps", "nan"), ["eps must be a positive number"]),
    # names from tables
    ((*ATTACK, "--attack", "squar"), ["unknown attack 'squar'", "did you mean 'square'"]),
    ((*ATTACK, "--attack", "square:querys=9"), ["unknown setting of square 'querys'", "did you mean 'queries'"]),
    ((*ATTACK, "--attack", "square:queries=x"), ["square:queries must be a whole number such as 3, got 'x'"]),
    ((*ATTACK, "--attack", "square:queries=9,queries=8"), ["sets queries twice, to 9 and to 8"]),
    ((*ATTACK, "--attack", "square:"), ["write square, or add key=value"]),
    ((*ATTACK, "--attack", "square:queries=9,"), ["write square:queries=9, or add key=value"]),
    ((*ATTACK, "--attack", "square:queries=0"), ["square:queries must be at least 1"]),
    ((*ATTACK, "--attack", "square:queries"), ["name:key=value"]),
    ((*ATTACK, "--on", "engin"), ["unknown form 'engin'", "did you mean 'engine'"]),
    ((*ATTACK, "--engine", "onnxruntim"), ["unknown engine 'onnxruntim'", "did you mean 'onnxruntime'"]),
    ((*ATTACK, "--engine", "onnxruntime:threads=0"), ["threads must be 1 or more"]),
    ((*ATTACK, "--engine", "onnxruntime:provider=cuda"), ["--engine onnxruntime-cuda"]),
    ((*ATTACK, "--target", "cpuu"), ["no int8 file for target 'cpuu'", "--target"]),
    ((*BENCH, "--engine", "onnxruntim"), ["did you mean 'onnxruntime'"]),
    ((*COMPARE, "--attack", "squar"), ["did you mean 'square'"]),
    ((*EXPORT, "--target", "tensorr"), ["unknown target 'tensorr'", "did you mean 'tensorrt'"]),
    ((*EXPORT, "--calibrator", "minmaxx"), ["unknown calibrator 'minmaxx'", "did you mean 'minmax'"]),
    ((*EXPORT, "--calibrator", "percentile:p=101"), ["percentile:p", "at most 100"]),
    ((*EXPORT, "--keep-float", "nolayer"), ["unknown layer 'nolayer'", "choose from"]),
    ((*TRAIN, "--objective", "train.standrd"), ["did you mean 'train.standard'"]),
    (("train", "--arch", "mlpp", *TRAIN[3:]), ["unknown architecture 'mlpp'", "did you mean 'mlp'"]),
    ((*TRAIN, "--optimizer", "adam"), ["--optimizer", "adamw"]),
    (("list", "attack"), ["did you mean 'attacks'"]),
    (("inspect", "FLOAT", "--target", "cpuu"), ["unknown target 'cpuu'", "did you mean 'cpu'"]),
    # numbers out of range
    ((*ATTACK, "--samples", "0"), ["--samples must be at least 1"]),
    ((*ATTACK, "--samples", "-3"), ["--samples must be at least 1"]),
    ((*ATTACK, "--seed", "-1"), ["seed must not be negative, got -1"]),
    ((*ATTACK, "--batch-size", "0", "--attack", "square"), ["batch_size must be at least 1"]),
    ((*BENCH, "--batch", "0"), ["batch must be 1 or more"]),
    ((*BENCH, "--threads", "0"), ["threads must be 1 or more"]),
    ((*BENCH, "--threads", "1000000"), ["threads must be at most 1024"]),
    ((*BENCH, "--calls", "0"), ["calls must be 1 or more"]),
    ((*BENCH, "--rounds", "0"), ["rounds must be 1 or more"]),
    ((*BENCH, "--seed", "-1"), ["seed must be 0 or more"]),
    ((*BENCH, "--warmup", "-1"), ["warm-up cannot be negative"]),
    ((*EXPORT, "--calibration-samples", "0"), ["--calibration-samples"]),
    ((*EXPORT, "--check-samples", "-5"), ["--check-samples"]),
    ((*EXPORT, "--min-agreement", "2"), ["--min-agreement is a share"]),
    ((*EXPORT, "--classes", "5"), ["10 outputs", "--classes"]),
    ((*TRAIN, "--epochs", "0"), ["epochs must be at least 1, got 0"]),
    ((*TRAIN, "--lr", "-1"), ["lr > 0"]),
    # the input of a model
    ((*EXPORT, "--input", "3x32x32"), ["was saved for", "leave --input"]),
    ((*INT8, "--input", "8x8"), ["CHANNELSxHEIGHTxWIDTH", "'8x8'"]),
    ((*INT8, "--input", "1x8x8", "--mean", "a"), ["--mean a", "'a' is not a number"]),
    ((*INT8, "--input", "1x8x8", "--mean", "0.1,0.2"), ["mean has 2 values for 1 channel"]),
    ((*INT8, "--input", "1x8x8", "--std", "0"), ["std must be positive"]),
    ((*INT8, "--mean", "0.5"), ["--mean and --std need --input"]),
    (INT8, ["add --input 3x32x32"]),
    ((*INT8, "--input", "3x32x32"), ["int8-cpu.onnx", "['batch', 1, 8, 8]"]),
    ((*INT8, "--input", "1x8x8", "--target", "cpu"), ["--target chooses a file of a bundle"]),
    ((*INT8, "--input", "1x8x8", "--on", "float"), ["no float parent", "--float FILE.onnx"]),
    ((*INT8, "--input", "1x8x8", "--float", "none.onnx"), ["no file none.onnx"]),
    ((*INT8, "--input", "1x8x8", "--float", "BUNDLE"), ["is not an .onnx file"]),
    ((*ATTACK, "--input", "1x8x8"), ["already holds normalisation", "leave --input"]),
    ((*ATTACK, "--float", "FLOAT"), ["holds its float file", "leave --float"]),
    (("attack", "MODEL", "--data", "DIGITS"), ["not an .onnx file", "rctk export"]),
    (("compare", "INT8", "--data", "DIGITS", "--input", "1x8x8"), ["no float parent", "--float FILE.onnx"]),
    (("attack", "none.onnx", "--data", "DIGITS", "--input", "1x8x8"), ["no file none.onnx"]),
    (("attack", "nowhere", "--data", "DIGITS"), ["no bundle at nowhere", "rctk export"]),
]
"""Arguments, and words of the line that refuses them."""


@pytest.fixture
def call(rctk, checkpoint, bundle, digits):
    places = {
        "MODEL": checkpoint,
        "BUNDLE": bundle,
        "DIGITS": digits,
        "INT8": bundle / "int8-cpu.onnx",
        "FLOAT": bundle / "float.onnx",
    }
    return lambda arguments: rctk(*(places.get(argument, argument) for argument in arguments))


@pytest.mark.parametrize(
    ("arguments", "words"), CASES, ids=[" ".join(arguments).replace("/", "_") for arguments, _ in CASES]
)
def test_refusal(call, tmp_path, arguments, words):
    done = call(arguments)
    refusal = done.refusal
    assert [word for word in words if word not in refusal] == []
    assert done.out == ""
    assert not {"out", "out.pt", "runs"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "--calibration", "digits:train", "--check-eps", "-1"), "eps must be"),
        (("export", "--calibration", "digits:train", "--calibrator", "minmaxx"), "unknown calibrator"),
        (("export", "--calibration", "digits:train", "--target", "cpuu"), "unknown target"),
        (("attack", "--data", "digits:test", "--attack", "squar"), "unknown attack"),
        (("attack", "--data", "digits:test", "--on", "engin"), "unknown form"),
        (("compare", "--data", "digits:test", "--max-drop", "2"), "max-drop"),
        (("compare", "--data", "digits:test", "--attack", "squar"), "unknown attack"),
        (("bench", "--batch", "0"), "batch must be"),
        (("attack", "--data", "digits:test", "--input", "uint8"), "write --grid uint8"),
    ],
)
def test_settings_are_refused_before_the_model_is_looked_for(rctk, arguments, words):
    command, *flags = arguments
    refusal = rctk(command, "missing", *flags).refusal
    assert words in refusal
    assert "missing" not in refusal
