"""The frame of the console command: which commands there are, and what their exit statuses mean."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from importlib import import_module
from types import ModuleType

from ..errors import PluginError
from ..names import printable
from ..places import without_secrets
from ..reason import reason
from ..version import __version__
from .streams import safe_streams

COMMANDS = {
    "score": "score folders, globs, tables and tars of images",
    "explain": "show what a score is made of, as pages",
    "compare": "compare two folders or two files of scores",
    "weights": "list, fetch, verify and import weights files",
    "adapt": "adapt ma_agiqa to your own ratings, in a minute",
    "train": "train or fine-tune the metric",
}

NOT_DONE = 2
INTERRUPTED = 130
DEBUG = "PYIQA_MA_AGIQA_DEBUG"
"""Environment variable; if it is not empty, errors come with their traceback."""
EPILOG = f"""\
exit status:
  0    done
  1    done, but some images could not be scored, or a check failed
  2    not done: wrong usage, or something is missing or has failed; the message says what
  130  interrupted; where a command can go on, the same command does
Whoever reads the output may go away (| head): the work goes on all the same, unless it is kept nowhere.

{DEBUG}=1 in the environment shows where in the code an error arose.

example:
  pyiqa-ma-agiqa score images/ --out scores.csv
  pyiqa-ma-agiqa score --help
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Args:
        arguments: the words after the command's name; those of the process where there are none.
    """
    words = sys.argv[1:] if arguments is None else arguments
    with safe_streams() as out:
        status = _status(words)
        out.flush()
        if out.problem and status != INTERRUPTED:
            return _not_done(f"standard output cannot be written ({out.problem}); give it another place")
        return status


def _status(words: list[str]) -> int:
    try:
        return _run(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG):
            print(without_secrets(traceback.format_exc()), file=sys.stderr, end="")
        if isinstance(error, PluginError):
            return _not_done(str(error))
        what = f"unforeseen {type(error).__name__} ({reason(error)})"
        return _not_done(f"{what}; {DEBUG}=1 in the environment shows where it arose")


def _not_done(message: str) -> int:
    print(f"error: {printable(without_secrets(message))}", file=sys.stderr)
    return NOT_DONE


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="pyiqa-ma-agiqa",
        description="Quality of AI-generated images, from one to millions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen: ModuleType | None = None
    for name, summary in COMMANDS.items():
        # Only the command at hand is imported, so that help comes at once.
        if words and words[0] == name:
            chosen = import_module(f".{name}", __package__)
            chosen.add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    options = parser.parse_args(words)
    if chosen is None:
        parser.error("give the command first")
    return chosen.run(options)
