"""The two lists of facts can be told apart, and each fact says what it means."""

import re

from execdrv.guarantees.facts import MACHINE_FACTS, SPEC_FACTS


def test_no_name_is_in_both_lists() -> None:
    assert not set(MACHINE_FACTS) & set(SPEC_FACTS)


def test_every_name_is_plain_and_explained() -> None:
    for name, meaning in {**MACHINE_FACTS, **SPEC_FACTS}.items():
        assert re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", name)
        assert len(meaning) > 10 and not meaning.endswith(".")


def test_every_namespace_of_linux_is_a_machine_fact() -> None:
    names = {name.removeprefix("ns.") for name in MACHINE_FACTS if name.startswith("ns.")}
    assert names == {"mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"}
