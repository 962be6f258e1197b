"""How a part of the checks says what is wrong, and how it runs the tools that its users trust."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A part does not hold; the text says what."""


def require(condition, text):
    if not condition:
        raise Failed(text)


def none(problems, what):
    """Fails with all of `problems`, one a line."""
    problems = list(problems)
    require(not problems, "\n    ".join([f"{what}:", *map(str, problems)]))


def run(*command, silent=False, codes=(0,), seconds_max=300, **options):
    """Runs a command to its end and gives its output. `silent`: a word of output is a failure too;
    `codes`: the exit codes that are none."""
    options = {"cwd": ROOT, "stdin": subprocess.DEVNULL, **options}
    if "input" in options:
        del options["stdin"]
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds_max,
            **options,
        )
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is missing: run .ci/install ops") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{command[0]} did not end within {seconds_max} s") from error
    if done.returncode not in codes or (silent and done.stdout.strip()):
        words = " ".join(str(word) for word in command)
        raise Failed(f"`{words}` ended with {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout
