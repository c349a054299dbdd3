"""What a device has left, from files such as Linux writes."""

from __future__ import annotations

import pytest
import torch

from artifactnet.models.attention import requirements as module
from artifactnet.models.attention.requirements import free_memory

CPU = torch.device("cpu")
MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    600 kB\n"
MAX = "9223372036854771712"  # what the first kind of cgroup says where there is no limit


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Writes the files of a machine: of the system, and of a container of each kind."""
    second, first = (
        container._replace(
            limit=tmp_path / f"{kind}.limit",
            used=tmp_path / f"{kind}.used",
            statistics=tmp_path / f"{kind}.stat",
        )
        for kind, container in zip(("second", "first"), module._CONTAINERS, strict=True)
    )
    monkeypatch.setattr(module, "_SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(module, "_CONTAINERS", (second, first))

    def write(meminfo=None, **containers):
        files = {"meminfo": meminfo}
        for kind, texts in containers.items():
            files |= {f"{kind}.{name}": text for name, text in texts.items()}
        for name, text in files.items():
            if text is not None:
                (tmp_path / name).write_text(text)

    return write


def test_the_files_are_those_of_linux():
    second, first = module._CONTAINERS
    assert [str(path) for path in second[:3]] == [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.current",
        "/sys/fs/cgroup/memory.stat",
    ]
    assert [str(path) for path in first[:3]] == [
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ]
    assert str(module._SYSTEM) == "/proc/meminfo"


def test_the_system_tells_what_is_available(system):
    system(MEMINFO)
    assert free_memory(CPU) == 600 * 1024


def test_cache_that_can_be_dropped_is_not_used_up(system):
    stat = "anon 1000\nfile 7000\ninactive_file 5000\nactive_file 2000\n"
    system(MEMINFO, second={"limit": "10000\n", "used": "9500\n", "stat": stat})
    assert free_memory(CPU) == 10_000 - 9500 + 5000


def test_the_first_kind_of_container_counts_its_children(system):
    stat = "cache 7000\ninactive_file 40\ntotal_cache 7000\ntotal_inactive_file 5000\n"
    system(MEMINFO, first={"limit": "10000\n", "used": "9500\n", "stat": stat})
    assert free_memory(CPU) == 10_000 - 9500 + 5000


def test_the_tighter_limit_counts(system):
    stat = "inactive_file 0\n"
    system(MEMINFO, second={"limit": str(1 << 30), "used": "0", "stat": stat})
    assert free_memory(CPU) == 600 * 1024
    system(second={"limit": "700000", "used": "200000"})
    assert free_memory(CPU) == 500_000
    system(second={"limit": "700000", "used": "700001"})  # the limit can be lowered below the use
    assert free_memory(CPU) == 0


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("second", {"limit": "max\n", "used": "9500\n", "stat": "inactive_file 0\n"}),
        ("first", {"limit": MAX, "used": "9500\n", "stat": "total_inactive_file 0\n"}),
        ("second", {"limit": "10\n"}),
    ],
)
def test_a_container_without_limit_changes_nothing(system, kind, texts):
    system(MEMINFO, **{kind: texts})
    assert free_memory(CPU) == 600 * 1024


def test_without_numbers_there_is_none(system):
    assert free_memory(CPU) is None
    system("MemTotal: 1000 kB\n")  # of a kernel before 3.14
    assert free_memory(CPU) is None
    system(second={"limit": "300", "used": "100"})
    assert free_memory(CPU) == 200
    system(second={"stat": "anon 100\n"})
    assert free_memory(CPU) == 200


def test_a_gpu_also_has_what_pytorch_holds_and_does_not_use(monkeypatch):
    asked = []

    def tells(value):
        return lambda device: asked.append(device) or value

    monkeypatch.setattr(torch.cuda, "mem_get_info", tells((5000, 9000)))
    monkeypatch.setattr(torch.cuda, "memory_reserved", tells(700))
    monkeypatch.setattr(torch.cuda, "memory_allocated", tells(300))
    gpu = torch.device("cuda", 1)
    assert free_memory(gpu) == 5400
    assert asked == [gpu] * 3


def test_on_this_machine_it_is_a_plausible_number():
    free = free_memory(CPU)
    assert free is None or 1 << 20 < free < 1 << 50
