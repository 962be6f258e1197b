"""What is installed: by `make install`, from the archive of `make dist`, and by the Debian package, which a
Debian in a folder of its own (.ci/chroot) installs, upgrades, removes and purges."""

import gzip
import hashlib
import os
import pathlib
import shutil
import stat
import tempfile

from report import ROOT, none, require, run

UNITS = sorted(path.name for end in ["service", "timer"] for path in (ROOT / "systemd").glob(f"*.{end}"))
# What systemd says of one that nothing enables but its timer, which is there instead.
STATES = {name: "enabled" if "[Install]" in (ROOT / "systemd" / name).read_text() else "static" for name in UNITS}
CONFIGS = sorted(path.name for path in (ROOT / "etc/kalshi").glob("*.yaml"))
# What the package has and `make install` has not: it is dpkg's and lintian's.
PACKAGE_ONLY = {f"usr/share/doc/kalshi/{name}" for name in ["changelog.Debian.gz", "copyright"]}
PACKAGE_ONLY.add("usr/share/lintian/overrides/kalshi")
OLD_VERSION = "0.0.1"
# What changes in a Debian that installs and purges any package.
ADMINISTRATION = ("var/lib/dpkg/", "var/log/", "var/cache/", "var/lib/systemd/", "etc/passwd", "etc/group",
                  "etc/shadow", "etc/gshadow", "etc/subuid", "etc/subgid", "etc/.pwd.lock", "run/", "tmp/")


def as_root(*command, **options):
    """A chroot needs root, and files of the system's users do too."""
    return run(*([] if os.geteuid() == 0 else ["sudo", "-n"]), *command, **options)


def tree(folder):
    """Every file and link below a folder, with what it is: mode and content, or where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"to {os.readlink(path)}"
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = f"{stat.S_IMODE(path.stat().st_mode):04o} {digest}"
    return found


def same(one, other, what):
    none((f"{name}: {one.get(name, 'missing')} and {other.get(name, 'missing')}"
          for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)), what)


def make(*words, folder=ROOT, target):
    # Whoever runs this may itself be run by make, whose flags are none of this one's business.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return run("make", "--no-print-directory", *words, cwd=folder,
               env={**environment, "CARGO_TARGET_DIR": str(target)})


def installed(kalshi, work):
    """What `make install` puts below a folder; nothing but configuration is left by `make uninstall`, and
    a configuration that was edited stays as it is."""
    stage = work / "stage"
    words = [f"DESTDIR={stage}", "PREFIX=/usr", f"EXECUTABLE={kalshi}"]
    make("install", *words, target=work)
    found = tree(stage)
    edited = stage / "etc/kalshi" / CONFIGS[0]
    edited.write_text("edited: true\n")
    make("install", *words, target=work)
    require(edited.read_text() == "edited: true\n", "make install overwrote a configuration")
    make("uninstall", *words, target=work)
    left = set(tree(stage))
    none(left ^ {f"etc/kalshi/{name}" for name in CONFIGS}, "make uninstall left, or took")

    local = work / "local"
    make("install", f"DESTDIR={local}", f"EXECUTABLE={kalshi}", target=work)
    unit = (local / "usr/local/lib/systemd/system" / UNITS[0]).read_text()
    require("file:///usr/local/share/doc/kalshi/runbook.md" in unit and "/usr/share" not in unit,
            "a unit does not name the runbook where PREFIX puts it")
    return found


def packed(kalshi, work):
    """What the archive of `make dist` installs; it is the same each time, and its checksums hold."""
    digests = set()
    for name in ["one", "two"]:
        # Neither the time nor whoever packs may be seen in it.
        script = 'umask "$1"; exec .ci/dist "$2" "$3"'
        umask = {"one": "022", "two": "077"}[name]
        text = run("sh", "-c", script, "sh", umask, kalshi, work / name)
        archive = pathlib.Path(text.splitlines()[-1])
        digests.add(hashlib.sha256(archive.read_bytes()).hexdigest())
    require(len(digests) == 1, "the archive differs from one time to the next")
    run("sha256sum", "--check", "--strict", f"{archive.name}.sha256", cwd=archive.parent)
    run("tar", "-xzf", archive, "-C", work)
    folder = work / archive.name.removesuffix(".tar.gz")
    run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=folder)
    unlisted = set(tree(folder)) - {line.split("  ./")[1]
                                    for line in (folder / "SHA256SUMS").read_text().splitlines()}
    none(unlisted - {"SHA256SUMS"}, "files without a checksum")
    require(run(folder / "kalshi", "--version") == run(kalshi, "--version"), "the archive's kalshi differs")
    make("install", f"DESTDIR={work / 'unpacked'}", "PREFIX=/usr", folder=folder, target=work)
    return tree(work / "unpacked")


def built(kalshi, work):
    """The Debian package, made as `make deb` does of an executable that is there, but packed less tightly."""
    (work / "release").mkdir()
    shutil.copy(kalshi, work / "release/kalshi")
    epoch = run("git", "log", "-1", "--format=%ct").strip()
    run("cargo", "deb", "--no-build", "--locked", "--strip", "--fast", "--offline",
        env={**os.environ, "CARGO_TARGET_DIR": str(work), "SOURCE_DATE_EPOCH": epoch})
    packages = list((work / "debian").glob("kalshi_*.deb"))
    require(len(packages) == 1, f"not one package: {packages}")
    version = run("dpkg-deb", "--field", packages[0], "Version").strip()
    require(version == run(kalshi, "--version").split()[1], f"the package says {version}, the executable else")
    return packages[0]


def older(package, work):
    """The same package as an earlier version would have been, whose examples of configurations differ."""
    folder = work / "older"
    run("dpkg-deb", "--raw-extract", package, folder)
    control = folder / "DEBIAN/control"
    text = control.read_text()
    lines = [f"Version: {OLD_VERSION}" if line.startswith("Version:") else line for line in text.splitlines()]
    control.write_text("\n".join(lines) + "\n")
    for name in CONFIGS:
        with (folder / "etc/kalshi" / name).open("a") as file:
            file.write("# as an earlier version had it\n")
    (folder / "DEBIAN/md5sums").unlink(missing_ok=True)
    made = work / "older.deb"
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", folder, made)
    return made


class Debian:
    """A Debian in a folder, whose systemd does not run."""

    def __init__(self, work):
        system = run(ROOT / ".ci/chroot").splitlines()[-1]
        self.root = work / "system"
        as_root("cp", "-a", "--reflink=auto", system, self.root)

    def run(self, *command, **options):
        """Runs a program there, with processes of its own."""
        return as_root("unshare", "--mount", "--pid", "--fork", f"--mount-proc={self.root}/proc",
                       "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                       "DEBIAN_FRONTEND=noninteractive", "chroot", self.root, *command, **options)

    def sh(self, script):
        return self.run("sh", "-euc", script)

    def dpkg(self, *words):
        return self.run("dpkg", *words)

    def put(self, path, text):
        self.run("tee", path, input=text)

    def files(self):
        """Everything that is there but what dpkg and the system's logs hold."""
        listed = self.run("find", "/", "-xdev", "-printf", "%P %y %m %u %g\n").splitlines()
        return {line for line in listed if not line.startswith(ADMINISTRATION)}


def enabled(debian, units):
    """Whatever starts by itself does so at the next start, and nothing else."""
    found = {unit: debian.run("systemctl", "is-enabled", unit).strip() for unit in units}
    none((f"{unit}: {found[unit]}" for unit in units if found[unit] != STATES[unit]), "units that are not enabled")


def install(debian, kalshi_version):
    """What must hold of a Debian on which the package was installed."""
    found = debian.sh("stat -c '%n %a %U %G' /var/lib/kalshi /etc/kalshi /etc/kalshi/credentials "
                      "/opt/kalshi/kalshi; getent passwd kalshi | cut -d: -f6,7").splitlines()
    wanted = ["/var/lib/kalshi 700 kalshi kalshi", "/etc/kalshi 755 root root",
              "/etc/kalshi/credentials 700 root root", "/opt/kalshi/kalshi 755 root root",
              "/var/lib/kalshi:/usr/sbin/nologin"]
    none(set(wanted) ^ set(found), "paths, their modes and owners")
    require(debian.sh("runuser -u kalshi -- kalshi --version") == kalshi_version,
            "its kalshi does not run there")
    enabled(debian, UNITS)
    debian.run("systemd-analyze", "verify", *UNITS, silent=True)
    debian.run("dpkg", "--verify", "kalshi", silent=True)


def check_lifecycle(debian, kalshi, package, old):
    """Installs, upgrades, removes and purges it."""
    version = run(kalshi, "--version")
    before = debian.files()
    for file in [package, old]:
        as_root("cp", file, debian.root / "root")
    debian.dpkg("--install", f"/root/{old.name}")
    install(debian, version)
    listed = debian.sh("dpkg-query --show --showformat='${Conffiles}\\n' kalshi").split()[::2]
    none(set(listed) ^ {f"/etc/kalshi/{name}" for name in CONFIGS}, "conffiles")

    # Somebody works with it.
    edited, untouched = CONFIGS
    debian.put(f"/etc/kalshi/{edited}", "edited: true\n")
    debian.put("/etc/kalshi/credentials/kalshi.pem", "a key\n")
    debian.sh("chmod 0400 /etc/kalshi/credentials/kalshi.pem; "
              "runuser -u kalshi -- mkdir /var/lib/kalshi/journal; "
              "echo recorded | runuser -u kalshi -- tee /var/lib/kalshi/journal/1 >/dev/null")
    debian.run("systemctl", "disable", UNITS[0])
    kept = "cat /etc/kalshi/credentials/kalshi.pem /var/lib/kalshi/journal/1"

    # As the runbook has it: without a question, what was edited stays.
    debian.dpkg("--force-confold", "--install", f"/root/{package.name}")
    require(debian.sh("dpkg-query --show --showformat='${Version}' kalshi") != OLD_VERSION, "not upgraded")
    require(debian.run("cat", f"/etc/kalshi/{edited}") == "edited: true\n", "the upgrade changed a configuration")
    for name in [f"{edited}.dpkg-dist", untouched]:
        text = debian.run("cat", f"/etc/kalshi/{name}")
        require(text == (ROOT / "etc/kalshi" / name.removesuffix(".dpkg-dist")).read_text(),
                f"{name} is not this version's")
    require(debian.sh(kept) == "a key\nrecorded\n", "the upgrade took secrets or data")
    require(debian.sh(f"systemctl is-enabled {UNITS[0]} || true").strip() == "disabled",
            "the upgrade enabled what was disabled")

    debian.dpkg("--remove", "kalshi")
    left = {line.split()[0] for line in debian.files() - before} - set(listed)
    none((f"/{name}" for name in left if name.startswith(("opt", "usr"))), "removing left")
    require(debian.run("cat", f"/etc/kalshi/{edited}") == "edited: true\n", "removing took a configuration")
    require(debian.sh(kept) == "a key\nrecorded\n", "removing took secrets or data")
    debian.sh("getent passwd kalshi")

    # Back again, and it is as before.
    debian.dpkg("--force-confold", "--install", f"/root/{package.name}")
    require(debian.run("cat", f"/etc/kalshi/{edited}") == "edited: true\n",
            "installing it again took a configuration")
    enabled(debian, UNITS[1:])

    debian.dpkg("--purge", "kalshi")
    for file in [package, old]:
        debian.run("rm", f"/root/{file.name}")
    # An empty /opt goes with the last package in it, because Debian counts it to none.
    none(sorted((debian.files() ^ before) - {"opt d 755 root root"}), "purging left, or took")
    debian.sh("! getent passwd kalshi && ! getent group kalshi")


def check(kalshi):
    kalshi = pathlib.Path(kalshi).resolve()
    scripts = [*sorted((ROOT / "systemd/debian").glob("p[or]*")),
               *(path for path in sorted((ROOT / ".ci").iterdir()) if path.read_text().startswith(("#!/bin/sh", "#!/usr/bin/env bash")))]
    run("shellcheck", *scripts)
    work = pathlib.Path(tempfile.mkdtemp(prefix="kalshi-package-"))
    # Folders of a Debian are passed on to its users.
    work.chmod(0o755)
    try:
        unpacked = packed(kalshi, work)
        same(installed(kalshi, work) | {"opt/kalshi/kalshi": unpacked["opt/kalshi/kalshi"]}, unpacked,
             "make install, from the repository and from the archive")
        package = built(kalshi, work)
        run("dpkg-deb", "--extract", package, work / "package")
        content = tree(work / "package")
        none(PACKAGE_ONLY - content.keys(), "the package lacks")
        changelog = gzip.decompress((work / "package/usr/share/doc/kalshi/changelog.Debian.gz").read_bytes()).decode()
        version = run("dpkg-deb", "--field", package, "Version").strip()
        require(changelog.startswith(f"kalshi ({version}) "), f"the changelog does not begin with {version}")
        same({name: what for name, what in content.items() if name not in PACKAGE_ONLY},
             unpacked | {"opt/kalshi/kalshi": content["opt/kalshi/kalshi"]}, "the package and make install")
        # Everything that it has to say; what does not hold here has its reason in the overrides.
        run("lintian", "--fail-on=error,warning", "--tag-display-limit=0", "--allow-root", package, silent=True)
        size = round(package.stat().st_size / 1e6)
        debian = Debian(work)
        system = debian.sh('. /etc/os-release; echo "$PRETTY_NAME"').strip()
        check_lifecycle(debian, kalshi, package, older(package, work))
    finally:
        as_root("rm", "-rf", work)
    return f"{len(content)} files, {size} MB; installed, upgraded, removed and purged on {system}"
