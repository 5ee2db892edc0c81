"""Floor 6: the command `fairseg-lite`. A file for each group of commands; this one joins them and words the errors.

Exit codes: 0 done; 2 bad input or a machine that refuses (one line on stderr says what, and what to do; `--debug` shows
the traceback); 130 stopped with Ctrl-C (a line says what was kept). torch is imported only by commands that need it, so
that `--help` is fast.
"""

import argparse
import contextlib
import os
import sys
import traceback

from fairseg_lite import __version__
from fairseg_lite.cli import data, detect, evaluate, naming, propose, train
from fairseg_lite.errors import InputError

MANY = ("train", "propose", "evaluate", "evaluate detections")  # what several processes share
DESCRIPTION = "From pictures to named masks: make or fetch data, train, propose masks, name them, measure them."
EXAMPLE = """example:
  fairseg-lite demo                          the pipeline on one scene, as pictures
  fairseg-lite propose holiday.jpg -o out    masks for your own picture
OMP_NUM_THREADS=2 before a command lets it use two processor threads; without it all cores.
"""


class Parser(argparse.ArgumentParser):
    """argparse with examples kept as written, and errors in one line."""

    def __init__(self, **options: object):
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show an error's traceback")

    def parse_known_args(self, args=None, namespace=None):
        """As argparse, but that a command may be two words, though the first is a command by itself: `evaluate detections`."""
        words = list(sys.argv[1:] if args is None else args)
        groups = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        if groups and " ".join(words[:2]) in groups[0].choices:
            words[:2] = [" ".join(words[:2])]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message} (try {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options; each carries `run`, the function that does it."""
    parser = Parser(prog="fairseg-lite", description=DESCRIPTION, epilog=EXAMPLE)
    parser.add_argument("--version", action="version", version=f"fairseg-lite {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for group in (propose, detect):
        group.add_commands(commands)
    naming.add_commands(commands, jobs=train.add_commands(commands))
    for group in (evaluate, data):
        group.add_commands(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args: argv: the words after `fairseg-lite`; None takes them from the command line.
    Returns: The exit code.
    Example:
        >>> main(["data", "shapes", "/dev/null/x", "-n", "1"])
        2
    """
    arguments = build_parser().parse_args(argv)
    world = int(os.environ.get("WORLD_SIZE", 1))  # torchrun's
    try:
        return (_one_of_many(arguments, world) if world > 1 else arguments.run(arguments)) or 0
    except KeyboardInterrupt as stop:
        print(f"\nstopped; {stop.args[0] if stop.args else 'what was written before is whole'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `fairseg-lite ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        line = _one_line(error, training=arguments.command in ("train", "ablate"))
        if line is None:
            raise
        if getattr(arguments, "debug", False):
            traceback.print_exc()
        which = f" (process {os.environ.get('RANK', 0)} of {world})" if world > 1 else ""
        print(f"fairseg-lite{which}: {line}", file=sys.stderr)
        return 2


def _one_of_many(a: argparse.Namespace, world: int) -> int | None:
    """A command shared out to the processes that torchrun started; the first one tells and writes."""
    if a.command not in MANY:
        raise InputError(f"{a.command} runs in one process, and torchrun started {world}; {', '.join(MANY)} are shared out")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP asks at each start whether it has to look for unused parameters
    from fairseg_lite.cli.options import device_of
    from fairseg_lite.training.shards import joined, rank_and_world

    with joined(device_of(a)) as device, open(os.devnull, "w", encoding="utf-8") as nowhere:
        a.device = str(device)
        if not rank_and_world()[0]:
            return a.run(a)
        with contextlib.redirect_stdout(nowhere), contextlib.suppress(KeyboardInterrupt):
            return a.run(a)
    return 130


def _one_line(error: Exception, *, training: bool = False) -> str | None:
    """The sentence a person needs; None for a fault of ours, which should show its traceback."""
    said = str(error).strip().split("\n")[0]
    if isinstance(error, InputError):
        return said
    if isinstance(error, MemoryError) or "out of memory" in said.lower() or "can't allocate memory" in said.lower():
        smaller = "fewer patches or pictures in a step" if training else "a smaller picture or fewer proposals (--top-k)"
        return f"out of memory; take {smaller}, or another --device"
    if isinstance(error, OSError) and error.strerror:
        names = " -> ".join(repr(str(n)) for n in (error.filename, error.filename2) if n is not None)
        return f"{error.strerror}{': ' + names if names else ''}"
    return None
