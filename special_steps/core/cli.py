"""The command line around a step: options and help come from the step function's own signature."""

import logging
import sys
import time
from collections.abc import Callable

from jsonargparse import auto_cli

from special_steps.core.errors import UserError

log = logging.getLogger("special")


def run(step: Callable[..., None]) -> None:
    """Call `step` with the options of the command line; a UserError becomes one line and exit code 1.

    Other exceptions keep their traceback: they are bugs, and the rule's log is where to find them.
    """
    start = time.perf_counter()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        auto_cli(step, as_positional=False)
    except UserError as error:
        print(
            "error:", " ".join(str(error).split()), file=sys.stderr
        )  # one line, whatever it quotes
        sys.exit(1)
    log.info("done in %.1f s", time.perf_counter() - start)
