import os
import resource

import pytest

from spokes.machine import Limit, memory_limit, processor_limit, worker_count

MIB = 1 << 20
HOST_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A /proc/self and control groups of our own making; without them, the host alone."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return Machine(tmp_path)


class Machine:
    def __init__(self, folder):
        self.proc = folder / "proc"
        self.proc.mkdir()
        self._groups = folder / "cgroup"
        self._mounts = ["25 1 8:1 / / rw - ext4 /dev/sda rw", "no mount at all"]
        self._own = []

    def group(self, controllers, path, *, root="/", **files):
        """A group that this process is in. `root`: which group the tree is mounted from, as a container sees it."""
        mount = self._groups / (controllers or "unified")
        inside = path.removeprefix(root).strip("/")
        folder = mount / inside
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text + "\n")
        kind = "cgroup cgroup rw," + controllers if controllers else "cgroup2 cgroup2 rw,nsdelegate"
        self._mounts.append(f"30 25 0:26 {root} {mount} rw,nosuid shared:9 - {kind}")
        self._own.append(f"{len(self._own)}:{controllers}:{path}")
        (self.proc / "mountinfo").write_text("\n".join(self._mounts) + "\n")
        (self.proc / "cgroup").write_text("\n".join(self._own) + "\n")
        return folder


def test_no_groups_the_host_and_affinity_count(machine):
    assert memory_limit(machine.proc) == Limit(HOST_BYTES, "this host's memory")
    assert processor_limit(machine.proc).value == 8


@pytest.mark.parametrize("name", ["memory__max", "memory__high"])
def test_memory_version_2(machine, name):
    machine.group("", "/system.slice/spokes.service", **{name: str(300 * MIB)})
    limit = memory_limit(machine.proc)
    assert limit.value == 300 * MIB
    assert "cgroup v2" in limit.source


def test_memory_version_2_a_group_above_may_be_the_smallest(machine):
    machine.group("", "/a/b", memory__max="max")
    machine.group("", "/a", memory__max=str(200 * MIB))
    (machine.proc / "cgroup").write_text("0::/a/b\n")
    assert memory_limit(machine.proc).value == 200 * MIB


def test_memory_version_1(machine):
    machine.group("memory", "/docker/abc", memory__limit_in_bytes=str(300 * MIB))
    limit = memory_limit(machine.proc)
    assert limit.value == 300 * MIB
    assert "cgroup v1" in limit.source


def test_memory_version_1_in_a_container_the_mount_is_its_own_group(machine):
    machine.group("memory", "/docker/abc", root="/docker/abc", memory__limit_in_bytes=str(300 * MIB))
    assert memory_limit(machine.proc).value == 300 * MIB


def test_memory_group_outside_of_what_is_mounted_counts_by_the_mounts_root(machine):
    machine.group("memory", "/", memory__limit_in_bytes=str(300 * MIB))
    (machine.proc / "cgroup").write_text("4:memory:/../elsewhere\n")
    assert memory_limit(machine.proc).value == 300 * MIB


@pytest.mark.parametrize("text", ["max", str((1 << 63) - 4096), "0", "", "x"])
def test_memory_no_limit_or_nonsense_is_none(machine, text):
    machine.group("", "/a", memory__max=text)
    machine.group("memory", "/a", memory__limit_in_bytes=text)
    assert memory_limit(machine.proc).value == HOST_BYTES


@pytest.mark.parametrize("which", [resource.RLIMIT_AS, resource.RLIMIT_DATA])
def test_memory_resource_limit(machine, monkeypatch, which):
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (100 * MIB if asked == which else unlimited, unlimited))
    limit = memory_limit(machine.proc)
    assert limit.value == 100 * MIB
    assert "resource limit" in limit.source


@pytest.mark.parametrize(
    ("text", "value", "workers"),
    [("150000 100000", 1.5, 2), ("50000 100000", 0.5, 1), ("400000 100000", 4, 4), ("max 100000", 8, 8), ("-1", 8, 8)],
)
def test_processors_version_2(machine, text, value, workers):
    machine.group("", "/a", cpu__max=text)
    limit = processor_limit(machine.proc)
    assert limit.value == value
    assert worker_count(limit) == workers


@pytest.mark.parametrize(("quota", "value"), [("250000", 2.5), ("-1", 8)])
def test_processors_version_1(machine, quota, value):
    machine.group("cpu,cpuacct", "/a", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert processor_limit(machine.proc).value == value


def test_this_machine_has_limits():
    assert 0 < memory_limit().value <= HOST_BYTES
    assert 0 < processor_limit().value <= len(os.sched_getaffinity(0))
