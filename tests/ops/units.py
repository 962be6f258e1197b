"""The systemd units: what systemd says of them, and what it cannot know."""

import pathlib
import re
import shutil
import tempfile

from report import ROOT, none, require, run

# systemd-analyze counts in tenths: 1.5, where 10 is a process that may do everything.
EXPOSURE_MAX = 15

# What each unit may not do, as one list: the sum that systemd makes of it has room for one that is missing.
HARDENING = {
    "User": ["kalshi"], "Group": ["kalshi"], "LimitCORE": ["0"], "NoNewPrivileges": ["yes"],
    "CapabilityBoundingSet": [""], "AmbientCapabilities": [""], "ProtectSystem": ["strict"], "ProtectHome": ["yes"],
    "ProtectProc": ["invisible"], "ProcSubset": ["pid"], "PrivateTmp": ["yes"], "PrivateDevices": ["yes"],
    "PrivateUsers": ["yes"], "PrivateMounts": ["yes"], "ProtectHostname": ["yes"], "ProtectClock": ["yes"],
    "ProtectKernelTunables": ["yes"], "ProtectKernelModules": ["yes"], "ProtectKernelLogs": ["yes"],
    "ProtectControlGroups": ["yes"], "RestrictAddressFamilies": ["AF_INET AF_INET6 AF_UNIX"],
    "RestrictNamespaces": ["yes"], "RestrictRealtime": ["yes"], "RestrictSUIDSGID": ["yes"],
    "LockPersonality": ["yes"], "MemoryDenyWriteExecute": ["yes"], "RemoveIPC": ["yes"],
    "KeyringMode": ["private"], "DevicePolicy": ["closed"], "SystemCallArchitectures": ["native"],
    "SystemCallFilter": ["@system-service", "~@privileged @resources"],
}
# What node_exporter reads is for everybody; nothing else that a unit writes is.
UMASK = {"kalshi-verify.service": "0022"}


def parse(path):
    """Sections to keys to the values that they are given, in order."""
    sections, current = {}, None
    for line in path.read_text().splitlines():
        line = line.strip()
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        else:
            key, _, value = line.partition("=")
            current.setdefault(key, []).append(value)
    return sections


def installed(units):
    """A tree that looks like an installed host, for `systemd-analyze verify --root`."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-units-"))
    shutil.copytree("/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    for program in ["opt/kalshi/kalshi", "bin/kill"]:
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", root / program)
    (root / "etc/systemd/system").mkdir(parents=True)
    for unit in units:
        shutil.copy(unit, root / "etc/systemd/system")
    return root


def drain_deadline_seconds():
    text = (ROOT / "src/ops/shutdown.rs").read_text()
    seconds = {
        name: int(value)
        for name, value in re.findall(r"const (\w+): Duration = Duration::from_secs\((\d+)\)", text)
    }
    return seconds["DRAIN_DEADLINE"] + seconds["LAST_ACTS_MAX"]


def program_reports(exec_start):
    """Whether the role that a unit runs pings systemd's watchdog: else systemd would end it."""
    role = re.search(r"/kalshi (\w+)", exec_start)[1]
    return "systemd::watchdog(" in (ROOT / f"src/role/{role}/mod.rs").read_text()


def rules(unit):
    """What must hold of a unit that systemd itself does not judge."""
    kind = "daemon" if parse(unit)["Service"].get("Type") != ["oneshot"] else "timed"
    for text, holds in [*everywhere(unit), *(daemon(unit) if kind == "daemon" else timed(unit))]:
        if not holds:
            yield f"{unit.name}: it does not hold that {text}"


def everywhere(unit):
    sections = parse(unit)
    head, service = sections["Unit"], sections["Service"]
    exec_start = service["ExecStart"][0].replace("rotate-password", "")
    lacking = [key for key, value in HARDENING.items() if service.get(key) != value]
    return [
        (f"{', '.join(lacking)} are as in every unit", not lacking),
        ("UMask is 0077", service.get("UMask") == [UMASK.get(unit.name, "0077")]),
        ("no StartLimit stands in [Service], where it is ignored",
         not any(key.startswith("StartLimit") for key in service)),
        ("secrets come by LoadCredential", len(service.get("LoadCredential", [])) >= 2),
        ("no secret stands in Environment or on the command line",
         "Environment" not in service and "password" not in exec_start),
        ("memory, tasks and files are limited",
         all(key in service for key in ["MemoryHigh", "MemoryMax", "TasksMax", "LimitNOFILE"])),
        ("a machine without its secrets passes it over", "ConditionPathExists" in head),
        ("nothing ties it to PostgreSQL",
         not any("postgresql" in value
                 for key in ["Requires", "Requisite", "BindsTo", "PartOf", "Upholds"]
                 for value in head.get(key, []))),
    ]


def timed(unit):
    """A program that a timer starts: it ends by itself, and nothing enables it but the timer."""
    sections = parse(unit)
    timer = unit.with_suffix(".timer")
    asked = parse(timer) if timer.exists() else {}
    return [
        ("it has a timer", bool(asked)),
        ("the timer says when", "OnCalendar" in asked.get("Timer", {})),
        ("the timer is enabled into timers.target",
         asked.get("Install", {}).get("WantedBy") == ["timers.target"]),
        ("timer and service are passed over together",
         asked.get("Unit", {}).get("ConditionPathExists")
         == sections["Unit"].get("ConditionPathExists")),
        ("it is not enabled by itself", "Install" not in sections),
        ("a run that hangs is ended", "TimeoutStartSec" in sections["Service"]),
    ]


def daemon(unit):
    sections = parse(unit)
    head, service = sections["Unit"], sections["Service"]
    timeout = int(service.get("TimeoutStopSec", ["90"])[0])
    return [
        ("StartLimitIntervalSec=0 stands in [Unit]", head.get("StartLimitIntervalSec") == ["0"]),
        ("Type=notify", service.get("Type") == ["notify"]),
        ("WatchdogSec is set, and the program reports to it",
         "WatchdogSec" in service and program_reports(service["ExecStart"][0])),
        ("Restart=always", service.get("Restart") == ["always"]),
        ("RestartPreventExitStatus=64", service.get("RestartPreventExitStatus") == ["64"]),
        (f"TimeoutStopSec is above the drain's {drain_deadline_seconds()} s",
         timeout > drain_deadline_seconds()),
        ("it is enabled into multi-user.target",
         sections["Install"].get("WantedBy") == ["multi-user.target"]),
    ]


def check():
    units = sorted((ROOT / "systemd").glob("*.service"))
    timers = sorted((ROOT / "systemd").glob("*.timer"))
    require(len(units) >= 4, "units are missing in systemd/")
    none((problem for unit in units for problem in rules(unit)), "units")
    root = installed([*units, *timers])
    try:
        # It is silent when all is well, and ends with 0 for what it only warns of.
        for unit in [*units, *timers]:
            run("systemd-analyze", "verify", f"--root={root}", unit.name, silent=True)
    finally:
        shutil.rmtree(root)
    worst = []
    for unit in units:
        text = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)
        worst.append(re.search(r"Overall exposure level for \S+: (\S+)", text)[1])
    return f"{len(units)} units and {len(timers)} timers, exposure {max(worst, key=float)} at most"
