"""A worker process of the local runner: Beam's own, without its chatter on stderr."""

import logging
import os
import signal

if __name__ == "__main__":
    # Ctrl-C reaches every process of the terminal: a worker ends without a word. Its shell has it
    # ignored until here (`pipeline.graph`), so that Python's start has no traceback to show either.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)  # on the handler, since Beam sets the root's level itself
    logging.basicConfig(handlers=[handler])
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core is Beam's business

    import sys

    from apache_beam.runners.worker.sdk_worker_main import main

    main(sys.argv)
