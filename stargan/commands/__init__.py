"""``python -m stargan``: the commands, a module each."""

from __future__ import annotations

import argparse
import logging
import sys

from stargan.allocator import is_out_of_memory
from stargan.commands import (
    average,
    bench,
    calibrate,
    evaluate,
    export,
    finish,
    import_,
    match,
    prepare,
    push,
    refine,
    serve,
    sheet,
    train,
    translate,
    video,
)


def main(arguments: list[str] | None = None, program: str = "stargan") -> int:
    """Runs one command; returns the exit status. What it refuses to do, or cannot, is said in a sentence: 2."""
    parser = command_line(program)
    options, rest = parser.parse_known_args(arguments)
    if rest and "rest" not in options:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_told)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:  # what this package tells people comes as ValueErrors
        print(error, file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print("The memory does not suffice for this, on the device that computes it.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _is_told(record: logging.LogRecord) -> bool:
    """The Hub's library reports every file that it writes, by loggers of more than one name."""
    return record.levelno >= logging.WARNING or "huggingface_hub" not in record.pathname


def command_line(program: str = "stargan") -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog=program, description="StarGAN v2: train, evaluate and use it.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (
        train,
        prepare,
        average,
        calibrate,
        refine,
        finish,
        match,
        evaluate,
        sheet,
        translate,
        video,
        import_,
        export,
        push,
        serve,
        bench,
    ):
        command.add(commands)
    return parser
