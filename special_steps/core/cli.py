"""The command line around a step: options and help come from the step function's own signature."""

import inspect
import logging
import sys
import time
from collections.abc import Callable

from jsonargparse import ArgumentParser, Unset, set_parsing_settings

from special_steps.core.errors import UserError

log = logging.getLogger("special")


def _marked(record: logging.LogRecord) -> bool:
    """Write what a user must know as "warning: ...", which the workflow says again at its end."""
    if record.name == log.name and record.levelno >= logging.WARNING:
        record.msg, record.args = f"warning: {' '.join(record.getMessage().split())}", None
    return True


def run(step: Callable[..., None], positional: bool = False) -> None:
    """Call `step` with the options of the command line; a UserError, or each of a group, becomes a line; exit code 1.

    An argument without a default has to be given, also one that may be null. Other exceptions keep their traceback:
    they are bugs, and the rule's log is where to find them. `positional`: arguments without a default have no name
    there, as people write them.
    """
    start = time.perf_counter()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_marked)
    set_parsing_settings(unset_sentinel=True)  # so that null is a value, not the lack of one
    parser = ArgumentParser(description=(inspect.getdoc(step) or "").partition("\n")[0])
    parser.add_function_arguments(step, as_group=False, as_positional=positional)
    options = parser.parse_args()
    missing = [f"--{name}" for name, value in vars(options).items() if value is Unset]
    if missing:
        parser.error(f"give {', '.join(missing)}; null where there is none")
    failed = False
    try:
        step(**parser.instantiate(options))
    except* UserError as errors:
        failed = True
        for error in errors.exceptions:
            line = " ".join(str(error).split())  # whatever it quotes
            print("error:", line, file=sys.stderr)
    if failed:
        sys.exit(1)
    log.info("done in %.1f s", time.perf_counter() - start)
