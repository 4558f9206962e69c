"""The Beam graph of a run.

A graph is a chain of stages: elements are spread over the workers, worked on, and their counts
summed; the next stage begins from the sum. That is chosen so that every runner does it right: few
and large elements, files that carry the data with only numbers between, one leaf, no tagged
outputs, nothing at the end of a bundle, counts as data. A stage that doesn't find its predecessor's
elements all done fails the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)

from pipeline.config import Config
from pipeline.errors import PipelineError, WorkerLostError
from pipeline.local_runner import LocalRunner
from pipeline.store import work
from pipeline.store.folder import Folder

if TYPE_CHECKING:  # the stages read files, some through the filesystems below
    from pipeline.stages import Counts, Stage


def run(folder: Folder, config: Config, stages: list[Stage], options: list[str]) -> None:
    """Do the stages; each leaves the sum of its counts in the folder, or errors of the user's.

    Raises:
        PipelineError: the runner of `options` can't be used.
        WorkerLostError: the runner or one of its workers has died.
    """
    for stage in stages:
        folder.delete(work.sum_name(stage.name))
    _keep_local_channels_from_proxies()
    try:
        with _pipeline(options) as pipeline:
            _add_stages(pipeline, folder, config, stages)
    except grpc.FutureTimeoutError as error:
        raise PipelineError(
            f"no job server answers; see --job_endpoint in {' '.join(options)}, and set no_proxy "
            "for its host where the environment names a proxy"
        ) from error
    except grpc.RpcError as error:
        raise WorkerLostError(
            f"the connection to the runner is lost ({str(error).strip()}). Run the same command "
            "again: it continues from what is finished"
        ) from error


def _add_stages(
    pipeline: beam.Pipeline, folder: Folder, config: Config, stages: list[Stage]
) -> None:
    counts = pipeline | "begin" >> beam.Create([{}])
    before: Stage | None = None
    for stage in stages:
        counts = (
            counts
            | f"{stage.name}: list" >> beam.FlatMap(_elements, stage, before, folder, config)
            | f"{stage.name}: spread" >> beam.Reshuffle()
            | stage.name >> beam.Map(_work, stage, folder, config)
            | f"{stage.name}: sum" >> beam.CombineGlobally(_sum)
        )
        before = stage
    _ = counts | "end" >> beam.Map(_has_ended, before, folder, config)


def _elements(
    counts: Counts, stage: Stage, before: Stage | None, folder: Folder, config: Config
) -> Iterator[Any]:
    if _has_ended(counts, before, folder, config):
        yield from stage.elements(folder, config)


def _has_ended(counts: Counts, stage: Stage | None, folder: Folder, config: Config) -> bool:
    """Whether a stage met no error of the user's; writes its sum.

    Raises RuntimeError when elements of it went lost.
    """
    if stage is None:
        return True
    if counts.get("failed") or not counts:
        return False
    expected, done = len(stage.elements(folder, config)), counts.get("done", 0)
    if done != expected:
        raise RuntimeError(f"{stage.name}: the runner brought {done} of {expected} elements")
    work.write_json(folder, work.sum_name(stage.name), counts)
    return True


def _work(element: Any, stage: Stage, folder: Folder, config: Config) -> Counts:
    try:
        return {**stage.work(folder, config, element), "done": 1}
    except PipelineError as problem:  # the run shows it, without a traceback
        work.leave_error(folder, problem)
        return {"failed": 1}


def _sum(counts: Iterable[Counts]) -> Counts:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _pipeline(options: list[str]) -> beam.Pipeline:
    """A pipeline on the runner of `options`, or in worker processes of this machine.

    The plain DirectRunner would look for Prism first; the local runner is named instead.
    """
    parsed = PipelineOptions(options)
    runner = parsed.view_as(StandardOptions).runner or "DirectRunner"
    local = runner.lower() in ("direct", "directrunner")
    # In this process Beam's errors are raised as well; elsewhere its INFO alone is chatter.
    in_process = local or runner.rpartition(".")[2].lower() == "fnapirunner"
    level = logging.CRITICAL if in_process else logging.WARNING
    logging.getLogger("apache_beam").setLevel(level)
    if local:
        one_each = PipelineOptions(["--direct_num_workers=0", *options])  # the last one counts
        return beam.Pipeline(LocalRunner(), options=one_each)
    try:
        return beam.Pipeline(options=parsed)
    except (ImportError, AttributeError, ValueError) as error:
        raise PipelineError(f"--runner: {error}") from error


def _keep_local_channels_from_proxies() -> None:
    """Exempt this machine from `http_proxy`, which gRPC follows even for localhost.

    Workers on other machines are reached as the environment says.
    """
    variables = ("no_grpc_proxy", "no_proxy", "NO_PROXY")  # gRPC takes the first that is set
    stated = next((os.environ[name] for name in variables if os.environ.get(name)), "")
    hosts = [host.strip() for host in stated.split(",") if host.strip()]
    hosts += [host for host in ("localhost", "127.0.0.1", "::1") if host not in hosts]
    os.environ[variables[0]] = ",".join(hosts)


def beam_option_names(runner: str) -> set[str]:
    """Names of every option that some part of Beam takes, without the dashes."""
    return {name.removeprefix("--") for name in _parser(runner)._option_string_actions}


def check_values(options: list[str], runner: str) -> None:
    """PipelineError for a value that an option of Beam's can't take."""
    workers = _parser(runner).parse_known_args(options)[0].direct_num_workers
    if workers < 0:
        raise PipelineError(
            f"--direct_num_workers: {workers}, must be at least 0; 0 is one for each processor"
        )


class _OptionParser(_BeamArgumentParser):
    """Beam's prints its usage, a screen of it, and ends the process."""

    def error(self, message: str) -> NoReturn:
        raise PipelineError(message.removeprefix("argument "))


def _parser(runner: str) -> _OptionParser:
    """A parser of every option that some part of Beam takes.

    Dask's are known once its runner is imported, which takes a second.
    """
    if "dask" in runner.lower():
        with contextlib.suppress(ImportError):
            import apache_beam.runners.dask.dask_runner  # noqa: F401
    parser = _OptionParser(add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)  # the names of values aren't always those of options
    return parser
