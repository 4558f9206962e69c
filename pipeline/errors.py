"""The errors that a user of the pipeline sees: one screen of text, no traceback."""

from pipeline.credentials import public


class PipelineError(Exception):
    """Names the file or key, what was found, what was expected, and the remedy.

    URLs are shown without their credentials.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(public(message))


class BadFile(PipelineError):  # noqa: N818  (a kind of PipelineError, and shown as one)
    """An input file that is cut off, damaged, or not of its kind; `bad_files: skip` passes on."""


class WorkerLostError(PipelineError):
    """A worker, or the whole runner, ended before the run; the same command continues."""

    exit_code = 69  # EX_UNAVAILABLE
