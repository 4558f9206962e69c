"""A worker process of the local runner: Beam's own, without its chatter on stderr."""

import logging
import os

if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setLevel(logging.ERROR)  # on the handler, since Beam sets the root's level itself
    logging.basicConfig(handlers=[handler])
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process a core is Beam's business

    import sys

    from apache_beam.runners.worker.sdk_worker_main import main

    main(sys.argv)
