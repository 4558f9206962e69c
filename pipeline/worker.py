"""A worker process of the local runner: Beam's own, without its chatter on stderr."""

import logging
import os
import signal
import sys

from pipeline.errors import PipelineError

NO_CONNECTION = 69  # exit code of a worker that doesn't reach the process that started it


def _is_not_told_by_the_run(record: logging.LogRecord) -> bool:
    """False for a user's error, which comes here when it can't be left in the folder."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, PipelineError) and "PipelineError: " not in record.getMessage()


if __name__ == "__main__":
    # Ctrl-C reaches every process of the terminal: a worker ends without a word. Its shell has it
    # ignored until here (`pipeline.local_runner`).
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)  # on the handler, since Beam sets the root's level itself
    # How a worker ends is told by its exit code, or by Python's own traceback.
    handler.addFilter(lambda record: record.levelno < logging.CRITICAL)
    handler.addFilter(_is_not_told_by_the_run)
    logging.basicConfig(handlers=[handler])
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core is Beam's business

    import grpc
    from apache_beam.runners.worker import sdk_worker
    from apache_beam.runners.worker.sdk_worker_main import main

    # It prints the traceback of every error that it logs, past the filters above.
    vars(sdk_worker)["print"] = lambda *_, **__: None
    try:
        main(sys.argv)
    except grpc.FutureTimeoutError:
        sys.exit(NO_CONNECTION)
