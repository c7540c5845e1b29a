"""``rctk serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rctk.cli.console import Bars
from rctk.cli.flags import InputFlags, Whole, whole
from rctk.deployment import Deployment, open_deployment
from rctk.serve.served import Served, model_name
from rctk.serve.settings import ServeSettings
from rctk_export.engine import Source
from rctk_export.engines import ENGINES
from rctk_export.engines.remote_digits import EVALUATION
from rctk_export.engines.remote_link import TOKEN, TOKEN_FILE, token_headers
from rctk_kernels.errors import OptionError

NO_INPUT_FLAGS = InputFlags()
DEFAULTS = ServeSettings()


def serve_(  # noqa: PLR0913  # every parameter is a flag
    path: Path,
    /,
    *,
    engine: str = "onnxruntime",
    target: str | None = None,
    name: str | None = None,
    host: str = DEFAULTS.host,
    port: Whole = DEFAULTS.port,
    grpc_port: Annotated[int | None, Parameter(converter=whole)] = DEFAULTS.grpc_port,
    max_batch: Whole = DEFAULTS.max_batch,
    queue: Whole = DEFAULTS.queue,
    token_file: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    flags: InputFlags = NO_INPUT_FLAGS,
) -> None:
    """Serve the deployed engine over the Open Inference Protocol v2, so that another machine can attack it.

    It listens on loopback unless --host says otherwise, and runs until Ctrl-C. Clients need the token in RCTK_TOKEN, or
    in --token-file, where there is one.

    Example: rctk serve model-int8 --engine tensorrt --port 8000

    Args:
        path: Bundle folder, or an .onnx file with --input.
        engine: Engine with settings, such as onnxruntime:threads=2.
        target: Which int8 file of the bundle; by default the engine's own, else cpu.
        name: Name of the model in its address; that of the bundle by default.
        host: Address to listen at; 0.0.0.0 lets every machine in.
        port: Port of HTTP; 0 takes a free one.
        grpc_port: Port of gRPC; without it there is none.
        max_batch: Most images of a request.
        queue: Most requests that wait; the next is told to come again.
        token_file: File that holds the token clients must send.
        certificate: PEM file of the certificate, for TLS.
        key: PEM file of its private key.
        flags: Input of a bare file.
    """
    if name is not None and name != model_name(name):
        raise OptionError(f"--name {name!r} does not fit into an address; write --name {model_name(name)}")
    environment = dict(os.environ) if token_file is None else {TOKEN_FILE: str(token_file)}
    token = token_headers(environment).get("authorization", "").removeprefix("Bearer ")
    settings = ServeSettings(
        host=host,
        port=port,
        grpc_port=grpc_port,
        max_batch=max_batch,
        queue=queue,
        certificate=certificate,
        key=key,
        token=token,
    )
    from rctk.serve.run import serve  # noqa: PLC0415  # says what to install where the server is missing

    with open_deployment(path, target=target, spec=flags.spec(), engine=engine) as deployment:
        models = _models(deployment, name or model_name(deployment.name), deployment.engine_of(engine), queue)
        if not settings.local and not token:
            Bars().note(f"every machine that reaches {host} can use this engine; set {TOKEN} to ask for a token")

        def ready(ports: tuple[int, int | None]) -> None:
            for scheme, at in zip(("http", "grpc"), ports, strict=True):
                if at is not None:
                    secure = "s" if key else ""
                    for served in models.values():
                        print(f"serving {scheme}{secure}://{host}:{at}/{served.name}", flush=True)
            print("Ctrl-C ends it", flush=True)

        serve(models, settings, ready)


def _models(deployment: Deployment, name: str, engine: str, waiting: int) -> dict[str, Served]:
    """Return what is served: the deployed file, and the one that score attacks read."""
    method = ENGINES.build(engine)
    sources: dict[str, Source] = {name: deployment.deployed}
    if deployment.evaluation is not None and deployment.bundle is not None:
        sources[name + EVALUATION] = deployment.evaluation
    return {each: Served(each, source, method, engine, waiting) for each, source in sources.items()}
