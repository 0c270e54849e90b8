"""How many CPUs a container leaves to us."""

from __future__ import annotations

import pytest

from tritonkit.bench.machine import cpu_limit, usable_cpus


@pytest.fixture
def cgroups(tmp_path):
    """`cgroups("0::/a/b", {"a/cpu.max": "…"})`: the limit under these cgroups."""

    def limit(own: str, files: dict[str, str]) -> int:
        (tmp_path / "own").write_text(own)
        for place, text in files.items():
            path = tmp_path / "cgroup" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cpu_limit(tmp_path / "cgroup", tmp_path / "own")

    return limit


ALL = len(usable_cpus())


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, ALL),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "190000 100000\n"}, min(ALL, 1)),
        ("0::/\n", {"cpu.max": "99900000 100000\n"}, ALL),
        ("0::/\n", {"cpu.max": "nonsense\n"}, ALL),
        ("0::/\n", {}, ALL),
        # The least on the way to the root counts.
        ("0::/a/b\n", {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
        # Version 1, and a container whose path is the host's.
        (
            "4:cpu,cpuacct:/docker/1\n2:memory:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            ALL,
        ),
    ],
)
def test_cpu_limit(cgroups, own, files, limit):
    """The quota of the cgroups bounds the CPUs, rounded down, and never below 1."""
    assert cgroups(own, files) == limit


def test_cpu_limit_without_cgroups(tmp_path):
    """Where there are no cgroups all CPUs may be used."""
    assert cpu_limit(tmp_path, tmp_path / "none") == ALL
