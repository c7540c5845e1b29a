"""The table of commands; a command is imported only when it is chosen."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence

from cyclopts import App, Parameter

from rctk import __version__
from rctk.cli.words import setting

COMMANDS = {
    "export": "Compress a classifier to int8 and write a bundle.",
    "attack": "Attack a bundle's float model, twin or engine, or a bare engine file.",
    "transfer": "Craft on every form of one or more models and try it on all: a source x target matrix.",
    "differential": "Search for images that the engine gets wrong and the float model right, and the reverse.",
    "curve": "Robust accuracy over the budget or over the number of queries, and where forms meet.",
    "bench": "Measure latency, throughput and memory of an engine on this machine.",
    "stress": "Corruptions, occlusion, rotations and JPEG: float against engine on the same images.",
    "compare": "Gate the deployed engine against its float parent; exit code 0, 1 or 3.",
    "audit": "Check whether robust accuracies can be believed, or gradients are masked.",
    "study": "Run models x methods x attacks x engines from one file, as cells that are kept.",
    "report": "Render records as tables, Markdown and one HTML page with plots.",
    "merge": "Join the records of several machines in one file, each once, oldest first.",
    "compress": "Prune, train, distill or quantize by the steps of a recipe, to a checkpoint.",
    "build": "Build the TensorRT plan of a bundle for the GPU of this machine.",
    "train": "Train a small classifier, plainly or adversarially, to a checkpoint.",
    "inspect": "Show what is in a bundle, an ONNX file, a TensorRT plan or a checkpoint.",
    "serve": "Serve the deployed engine to other machines over the Open Inference Protocol v2.",
    "replay": "Judge adversarial images that were made on another machine with the engine here.",
    "doctor": "Show what this machine can run and what to mend.",
    "list": "List attacks, engines, models, data sets, targets and calibrators.",
}


def make_app(arguments: Sequence[str] = ()) -> App:
    """Return the command line; only the command that ``arguments`` choose is imported, with its whole help page."""
    app = App(
        name="rctk",
        help="Robust compression toolkit: compress a classifier, attack what ships, gate float against deployed.",
        version=__version__,
        help_format="plaintext",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        default_parameter=Parameter(show_default=setting),
    )
    for name, text in COMMANDS.items():
        if name in arguments[:1]:
            function = getattr(importlib.import_module(f"rctk.cli.{name}_command"), f"{name}_")
            app.command(function, name=name, help=_page(function))
        else:
            app.command(f"rctk.cli.{name}_command:{name}_", name=name, help=text)
    app.register_install_completion_command(help="Install completion for this shell.")
    return app


def _page(function: Callable[..., object]) -> str:
    """Return what the docstring says before its arguments, each paragraph in one line for the terminal to fold."""
    paragraphs = (inspect.getdoc(function) or "").partition("\nArgs:")[0].strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
