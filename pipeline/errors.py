"""The one error that a user of the pipeline sees: one screen of text, no traceback."""


class PipelineError(Exception):
    """Names the file or key, what was found, what was expected, and how to mend it."""
