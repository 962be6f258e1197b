#!/usr/bin/python3
"""Stands for systemd on a machine of `firstboot.py`, where it does not run: starts, watches and stops what the
units say, with their drop-ins. It knows conditions, users, environments, credentials, folders, readiness by
notification, time-outs and restarts; no sandboxing, no limits, no watchdog, and timers never elapse."""

import json
import os
import pathlib
import pwd
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

STATE = pathlib.Path("/run/stand-in")
FOLDERS = ["/etc/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system"]
# PostgreSQL's unit only stands for one of each cluster, which Debian's own program starts and stops.
CLUSTERS = "postgresql.service"


def files(name):
    found = [path for folder in FOLDERS if (path := pathlib.Path(folder, name)).exists()][:1]
    if not found:
        print(f"Unit {name} not found.", file=sys.stderr)
        sys.exit(5)
    folders = [pathlib.Path(folder, f"{name}.d") for folder in reversed(FOLDERS)]
    drop_ins = {path.name: path for folder in folders for path in folder.glob("*.conf")}
    return found + [drop_ins[one] for one in sorted(drop_ins)]


def unit(name):
    """Section and key to values; an empty value forgets those before it."""
    sections = {}
    for path in files(name):
        section = None
        for line in map(str.strip, path.read_text().splitlines()):
            if line.startswith("["):
                section = sections.setdefault(line.strip("[]"), {})
            elif line and line[0] not in "#;":
                key, value = (part.strip() for part in line.split("=", 1))
                section[key] = section.get(key, []) + [value] if value else []
    return sections


def last(section, key, default=None):
    return (section.get(key) or [default])[-1]


def seconds(text):
    amount = "".join(character for character in text if character.isdigit())
    return int(amount) * (60 if text.endswith("min") else 1)


def passed_over(sections):
    paths = sections.get("Unit", {}).get("ConditionPathExists", [])
    return [path for path in paths if not os.path.exists(path)]


def prepare(name, service):
    """What must be there before the program starts: its environment, and its user."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8"}
    who = last(service, "User")
    user = pwd.getpwnam(who) if who else pwd.getpwuid(0)
    if who:
        environment |= {"HOME": user.pw_dir, "USER": who, "LOGNAME": who, "SHELL": user.pw_shell}
    for path in service.get("EnvironmentFile", []):
        if path.startswith("-") and not os.path.exists(path[1:]):
            continue
        for line in pathlib.Path(path.removeprefix("-")).read_text().splitlines():
            if line and line[0] not in "#;":
                key, value = line.split("=", 1)
                environment[key] = " ".join(shlex.split(value))
    for key, folder in [("StateDirectory", "/var/lib"), ("RuntimeDirectory", "/run")]:
        for one in service.get(key, []):
            path = pathlib.Path(folder, one)
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(int(last(service, f"{key}Mode", "0755"), 8))
            if path.stat().st_uid != user.pw_uid:
                # As systemd does it: a folder of somebody else is given to its user with all that it holds.
                subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", path], check=True)
    if service.get("LoadCredential"):
        folder = STATE / "credentials" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for line in service["LoadCredential"]:
            credential, source = line.split(":", 1)
            if not os.path.exists(source):
                print(f"{name}: credential {credential}: {source} is missing", file=sys.stderr)
                sys.exit(243)
            shutil.copy(source, folder / credential)
            os.chown(folder / credential, user.pw_uid, user.pw_gid)
            (folder / credential).chmod(0o400)
        os.chown(folder, user.pw_uid, user.pw_gid)
        folder.chmod(0o500)
        environment["CREDENTIALS_DIRECTORY"] = str(folder)
    return environment, user


def spawn(service, environment, user, log):
    words = []
    for word in shlex.split(last(service, "ExecStart")):
        words += shlex.split(environment.get(word[1:], "")) if word.startswith("$") else [word]
    return subprocess.Popen(
        words, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        user=user.pw_uid, group=user.pw_gid, extra_groups=os.getgrouplist(user.pw_name, user.pw_gid),
        umask=int(last(service, "UMask", "0022"), 8), start_new_session=True,
    )


def supervise(name, told):
    """Keeps one running until it is asked to stop. `told` hears once how the first start went."""
    service = unit(name)["Service"]
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    place = STATE / f"{name}.notify"
    place.unlink(missing_ok=True)
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.bind(str(place))
    place.chmod(0o666)
    waiting = True

    def tell(text):
        nonlocal waiting
        if waiting:
            os.write(told, text.encode())
            os.close(told)
            waiting = False

    while True:
        environment, user = prepare(name, service)
        notifies = last(service, "Type") == "notify"
        if notifies:
            environment["NOTIFY_SOCKET"] = str(place)
        with (STATE / f"{name}.log").open("a") as log:
            program = spawn(service, environment, user, log)
        deadline = time.monotonic() + seconds(last(service, "TimeoutStartSec", "90")) if notifies else None
        if not notifies:
            tell("ready")
        while program.poll() is None:
            if select.select([said], [], [], 0.1)[0] and b"READY=1" in said.recv(65536).splitlines():
                (STATE / f"{name}.ready").touch()
                deadline = None
                tell("ready")
            if deadline and time.monotonic() > deadline:
                tell("timed out")
                program.kill()
            if asked:
                program.terminate()
                try:
                    program.wait(seconds(last(service, "TimeoutStopSec", "90")))
                except subprocess.TimeoutExpired:
                    program.kill()
        (STATE / f"{name}.ready").unlink(missing_ok=True)
        tell(f"ended with {program.returncode}")
        prevented = str(program.returncode) in last(service, "RestartPreventExitStatus", "").split()
        if asked or prevented or last(service, "Restart", "no") == "no":
            return
        pause = time.monotonic() + seconds(last(service, "RestartSec", "1"))
        while time.monotonic() < pause and not asked:
            time.sleep(0.1)
        if asked:
            return


def supervisor(name):
    """The process that watches a unit; none when it does not run."""
    try:
        pid = int((STATE / f"{name}.pid").read_text())
        words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return pid if name.encode() in words and b"supervise" in words else None
    except (OSError, ValueError):
        return None


def clusters(act):
    listed = json.loads(subprocess.run(["pg_lsclusters", "-j"], check=True, capture_output=True).stdout)
    if act == "is-active":
        return listed and all(one["running"] for one in listed)
    for one in listed:
        if act != "start" or not one["running"]:
            subprocess.run(["pg_ctlcluster", str(one["version"]), one["cluster"], act], check=True)
    return True


def is_active(name):
    if name == CLUSTERS:
        return shutil.which("pg_lsclusters") and clusters("is-active")
    return (STATE / f"{name}.active").exists() or supervisor(name) is not None


def stop(name):
    (STATE / f"{name}.active").unlink(missing_ok=True)
    if pid := supervisor(name):
        os.kill(pid, signal.SIGTERM)
        while supervisor(name):
            time.sleep(0.05)


def start(name):
    """Whether it runs now, or need not."""
    if is_active(name):
        return True
    sections = unit(name)
    if passed_over(sections):
        return True
    if name.endswith(".timer"):
        (STATE / f"{name}.active").touch()
        return True
    service = sections["Service"]
    if last(service, "Type") == "oneshot":
        environment, user = prepare(name, service)
        with (STATE / f"{name}.log").open("a") as log:
            program = spawn(service, environment, user, log)
            code = program.wait(seconds(last(service, "TimeoutStartSec", "90")))
        print(f"{name} ended with {code}", file=sys.stderr)
        return code == 0
    heard, told = os.pipe()
    with (STATE / f"{name}.supervisor").open("a") as log:
        watcher = subprocess.Popen([sys.executable, __file__, "supervise", name, str(told)], pass_fds=[told],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (STATE / f"{name}.pid").write_text(str(watcher.pid))
    os.close(told)
    text = os.read(heard, 100).decode() or "did not start"
    print(f"{name}: {text}", file=sys.stderr)
    return text == "ready"


def main():
    act, *words = sys.argv[1:]
    if act == "supervise":
        return supervise(words[0], int(words[1]))
    STATE.mkdir(exist_ok=True)
    options = [word for word in words if word.startswith("-")]
    names = [word if "." in word else f"{word}.service" for word in words if word not in options]
    if set(options) - {"--now", "--quiet"}:
        sys.exit(f"systemctl: {options} are not known here")
    well = True
    if act == "daemon-reload":
        return None
    if act == "is-active":
        well = all(is_active(name) for name in names)
        if not options:
            print("active" if well else "inactive")
        sys.exit(0 if well else 3)
    if act == "enable":
        # Links alone, which the real one makes without a running systemd.
        subprocess.run(["/usr/bin/systemctl", "enable", *names], check=True, env={**os.environ, "SYSTEMD_OFFLINE": "1"})
        if "--now" not in options:
            return None
        act = "start"
    for name in names:
        if act not in ("start", "stop", "restart"):
            sys.exit(f"systemctl {act} is not known here")
        if name == CLUSTERS:
            clusters(act)
            continue
        if act != "start":
            stop(name)
        if act != "stop":
            well = start(name) and well
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
