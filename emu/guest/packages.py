"""Fetches the distribution's riscv64 packages with apt, with private state and without being root.

The mirror is the one apt is configured with on this machine, so no host name appears here. apt verifies the suite's
signature with the distribution's keyring, and through it the hash of every package.
"""

import platform
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from devices.errors import PyemuError
from emu.guest.job import CommandError, Job
from emu.guest.requirements import keyring

__all__ = ["fetch"]

# The suites to look in: riscv64 became a release architecture with Debian 13 (trixie).
_SUITES = ("trixie", "forky", "sid")

_MEGABYTE = 1e6


def fetch(job: Job, names: Sequence[str]) -> list[Path]:
    """Download and verify the packages, and return their files in order of name.

    Raises PyemuError if none of this machine's mirrors has them or can be reached.
    """
    environment = _select_source(job, names)
    uris = _apt(job, environment, "download", "--print-uris", *names)
    sizes = [int(size) for size in re.findall(r"^'.+' \S+ (\d+) ", uris, re.MULTILINE)]
    debs = job.work / "debs"
    debs.mkdir(exist_ok=True)
    job.report(f"downloading {len(sizes)} packages ({sum(sizes) / _MEGABYTE:.1f} MB)")
    _apt(job, environment, "download", *names, directory=debs)
    # Go by apt's list, not by what is in the directory: an interrupted run may have left older versions.
    return sorted(debs / name for name in re.findall(r"^'.+' (\S+) \d+ ", uris, re.MULTILINE))


def _select_source(job: Job, names: Sequence[str]) -> dict[str, str]:
    """Find a mirror and a suite that have the packages; return the environment in which apt uses them."""
    problems = []
    for suite, uri in product(_SUITES, _mirrors(job)):
        job.report(f"looking for riscv64 packages at {uri} {suite}")
        environment = _private_state(job, uri, suite)
        try:
            _apt(job, environment, "update", "--option", "APT::Update::Error-Mode=any")
            _apt(job, environment, "download", "--print-uris", *names)
        except CommandError as error:
            problems += [*re.findall(r"^E: (.+)", error.output, re.MULTILINE), str(error)][:1]
            if "Failed to fetch" in error.output:
                break  # not the wrong place but an unreachable one, as the others will be
        else:
            return environment
    problem = next(iter(problems), "apt has no source of packages")
    raise PyemuError(f"the riscv64 packages for the guest cannot be fetched (is the network up?): {problem}")


def _mirrors(job: Job) -> list[str]:
    """Return the URIs of this machine's package sources, those with its own release first."""
    listed = job.run("apt-get", "update", "--print-uris")
    sources = re.findall(r"^'(.+?)/dists/([^/]+)/InRelease'", listed, re.MULTILINE)
    release = platform.freedesktop_os_release().get("VERSION_CODENAME")
    return list(dict.fromkeys(uri for uri, suite in sorted(sources, key=lambda source: source[1] != release)))


def _apt(job: Job, environment: dict[str, str], *arguments: str, directory: Path | None = None) -> str:
    return job.run("apt-get", "--quiet", *arguments, environment=environment, directory=directory)


def _private_state(job: Job, uri: str, suite: str) -> dict[str, str]:
    """Lay out what apt needs for riscv64 with this one source, using none of the host's own state."""
    root = job.work / "apt"
    for name in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "var/lib/dpkg"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    source = {
        "Types": "deb",
        "URIs": uri,
        "Suites": suite,
        "Components": "main",
        "Architectures": "riscv64",
        "Signed-By": str(keyring()),
    }
    sources = root / "etc/apt/sources.list.d/guest.sources"
    sources.write_text("".join(f"{field}: {value}\n" for field, value in source.items()))
    configuration = root / "apt.conf"
    configuration.write_text("\n".join(_settings(job, root)) + "\n")
    return {"APT_CONFIG": str(configuration)}


def _settings(job: Job, root: Path) -> Iterator[str]:
    """Yield apt's settings; of the host's own, only how to reach a mirror (proxies, time-outs)."""
    yield f'Dir "{root}";'
    yield 'APT::Architecture "riscv64";'
    yield 'APT::Architectures { "riscv64"; };'
    yield 'APT::Sandbox::User "root";'  # the user _apt cannot write into a home directory
    yield 'Acquire::Languages "none";'
    for line in job.run("apt-config", "dump").splitlines():
        if re.match(r"Acquire::(https?|ftp|Check-\w+|Retries|ForceIPv\d)\b", line):
            yield line
