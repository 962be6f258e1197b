"""Checks everything around the executable: units, rules, dashboards, Terraform, crates, the package, the
runbook. Prints one line a part, and ends with 1 when a part does not hold.

    tests/ops/check.py target/release/kalshi [PART...]
"""

import argparse
import signal
import sys
import time
import traceback

import broken
import exposure
import firstboot
import live
import package
import provider
import rules
import runbook
import sandbox
import terraform
import units
from report import Failed

PARTS = {
    "units": units.check,
    "rules": rules.check,
    "dashboards": live.check_dashboards,
    "terraform": terraform.check,
    "provider": provider.check,
    "scripts": terraform.check_scripts,
    "exposure": exposure.check,
    "supply": exposure.check_supply,
    "runbook": runbook.check,
}
# These only when they are asked for: they check the checks.
ASKED_PARTS = {
    "broken": broken.check,
}
# These need the executable.
EXECUTABLE_PARTS = {
    "package": package.check,
}
# These need it too, and only when they are asked for: they take minutes and the network.
ASKED_EXECUTABLE_PARTS = {
    "firstboot": firstboot.check,
}
# These need the running platform, which is started once for all.
LIVE_PARTS = {
    "metrics": live.check,
    "commands": runbook.check_commands,
    "configs": terraform.check_configurations,
}


def part(name, check):
    began = time.monotonic()
    try:
        said, holds = check(), True
    except Failed as error:
        said, holds = str(error), False
    except Exception:  # A fault of the check itself is a part that does not hold; the others go on.
        said, holds = traceback.format_exc(), False
    seconds = time.monotonic() - began
    print(f"{'ok    ' if holds else 'FAILED'} {name:<10} {seconds:5.1f} s  {said}", flush=True)
    return holds


def main():
    # Whoever ends this wants what it started to end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kalshi", help="the executable")
    parser.add_argument("part", nargs="*", choices=[[], *PARTS, *ASKED_PARTS, *EXECUTABLE_PARTS,
                                                   *ASKED_EXECUTABLE_PARTS, *LIVE_PARTS],
                        help="all but broken and firstboot when none is given")
    arguments = parser.parse_args()
    chosen = arguments.part or [*PARTS, *EXECUTABLE_PARTS, *LIVE_PARTS]
    results = [part(name, check) for name, check in {**PARTS, **ASKED_PARTS}.items() if name in chosen]
    results += [
        part(name, lambda check=check: check(arguments.kalshi))
        for name, check in {**EXECUTABLE_PARTS, **ASKED_EXECUTABLE_PARTS}.items() if name in chosen
    ]
    living = {name: check for name, check in LIVE_PARTS.items() if name in chosen}
    if living:
        try:
            with sandbox.Sandbox(arguments.kalshi) as platform:
                results += [
                    part(name, lambda check=check: check(platform)) for name, check in living.items()
                ]
        except Failed as error:
            print(f"FAILED sandbox: {error}")
            results.append(False)
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
