"""What a driver declares: precedence, every error, and what passes a request or a --require."""

import copy
import json
import pickle
import sys
import threading
from collections.abc import Callable

import attrs
import pytest

from execdrv.errors import PluginError
from execdrv.guarantees import ids
from execdrv.guarantees.facts import MACHINE_FACTS, SPEC_FACTS
from execdrv.offers import (
    DEFAULT_CATALOGUE,
    Offers,
    Status,
    absent,
    domain_key,
    enforced,
    evaluate,
    not_applicable,
    partial,
    unclaimed,
    when,
)

PROFILES = ("base", "fs", "limits", "container", "hardened", "hostile")
CONDITIONS = (*SPEC_FACTS, *MACHINE_FACTS)


def whole(**changes: Status) -> dict[str, Status]:
    """A valid table: every profile enforced."""
    return {profile: enforced() for profile in PROFILES} | changes


# --- precedence --------------------------------------------------------------------------------


def test_profile_gives_every_id_of_it_a_status() -> None:
    offers = Offers(whole(hardened=absent("not yet")))
    for id, (profile, _) in ids.IDS.items():
        status = offers.status(id)
        assert status is not None
        assert (status.kind == "absent") is (profile == "hardened")


def test_domain_beats_profile_and_id_beats_domain() -> None:
    offers = Offers(whole() | {"tty.*": absent("no terminals yet"), "tty.alloc": enforced()})
    assert offers.status("tty.alloc") == enforced()
    assert offers.status("tty.session") == absent("no terminals yet")
    assert offers.status("proc.reap") == enforced()


def test_order_of_the_entries_does_not_matter() -> None:
    pairs = [*whole().items(), ("tty.*", absent("a")), ("tty.alloc", absent("b"))]
    assert Offers(pairs).statuses() == Offers(pairs[::-1]).statuses()


def test_domain_reaches_ids_of_every_profile() -> None:
    assert ids.IDS["io.split"][0] == "base"
    assert ids.IDS["io.bps"][0] == "limits"
    offers = Offers(whole() | {"io.*": absent("x")})
    assert offers.status("io.split") == offers.status("io.bps") == absent("x")


def test_every_id_has_a_domain_key() -> None:
    assert domain_key("mnt.bind-ro") == "mnt.*"
    for id in ids.IDS:
        assert Offers({domain_key(id): enforced()}).status(id) == enforced()


def test_statuses_stand_in_the_order_of_the_catalogue() -> None:
    assert list(Offers(whole()).statuses()) == list(ids.IDS)


def test_statuses_cannot_be_changed_by_who_reads_them() -> None:
    statuses = Offers(whole()).statuses()
    with pytest.raises(TypeError):
        statuses["pid.ns"] = absent("x")  # type: ignore[index]


def test_thread_that_asks_while_another_fills_the_table_gets_the_answer() -> None:
    last = list(ids.IDS)[-1]
    wrong: list[Status | None] = []
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            offers = Offers(whole())
            barrier = threading.Barrier(4)

            def ask(offers: Offers = offers, barrier: threading.Barrier = barrier) -> None:
                barrier.wait(timeout=30)
                answers = [offers.status(last) for _ in range(20)]
                wrong.extend(answer for answer in answers if answer != enforced())

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=30)
    finally:
        sys.setswitchinterval(before)
    assert wrong == []


# --- the form ----------------------------------------------------------------------------------


def test_valid_table_has_no_problems() -> None:
    offers = Offers(
        whole()
        | {
            "tty.*": absent("no terminals yet"),
            "user.no-return": when("job-not-root", "uid 0 was asked for"),
            "fs.tmp-private": partial("only /tmp", remains="/var/tmp is the root's own"),
            "lsm.*": unclaimed("nobody looked"),
            "pid.ns-death": not_applicable("no pid namespace"),
        }
    )
    assert offers.problems() == ()
    offers.validate(driver="mine")


def first_ids(count: int) -> list[str]:
    return list(ids.IDS)[:count]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (
            [*whole().items(), ("base", absent("x"))],
            "key 'base' stands twice",
        ),
        (
            [*whole().items(), ("tty.*", absent("x")), ("tty.*", absent("x"))],
            "key 'tty.*' stands twice",
        ),
        (
            [*whole().items(), ("pid.ns", enforced()), ("pid.ns", enforced())],
            "key 'pid.ns' stands twice",
        ),
        (whole() | {"pid.nss": enforced()}, "key 'pid.nss' is not in catalogue 2026.1"),
        (whole() | {"pidd.*": enforced()}, "key 'pidd.*' is not in catalogue 2026.1"),
        (whole(basic=enforced()), "key 'basic' is not in catalogue 2026.1"),
        (whole() | {"pid": enforced()}, "key 'pid' is not in catalogue 2026.1"),
        (
            {key: value for key, value in whole().items() if key != "fs"}
            | {"mnt.*": enforced()}
            | {id: enforced() for id in ids.IDS if id.startswith("fs.") and id != "fs.size"},
            "id 'fs.size' has no status",
        ),
        (
            whole() | {"pid.hidden": not_applicable("no processes")},
            "key 'pid.hidden': 'pid.hidden' can't be not-applicable",
        ),
        (
            whole() | {"tty.*": not_applicable("no terminals")},
            "key 'tty.*': 'tty.alloc' can't be not-applicable",
        ),
        (whole() | {"tty.*": absent("")}, "key 'tty.*': absent needs a reason"),
        (whole() | {"tty.*": absent(" ")}, "key 'tty.*': absent needs a reason"),
        (whole() | {"tty.*": unclaimed("")}, "key 'tty.*': unclaimed needs a reason"),
        (whole() | {"pid.ns-death": not_applicable("")}, "not-applicable needs a reason"),
        (whole() | {"tty.*": when("root", "")}, "key 'tty.*': when needs a reason"),
        (whole() | {"tty.*": partial("", remains="x")}, "key 'tty.*': partial needs a reason"),
        (
            whole() | {"tty.*": partial("x", remains="")},
            "key 'tty.*': partial needs to say what remains open",
        ),
        (whole() | {"tty.*": when("moon-full", "x")}, "key 'tty.*': no condition 'moon-full'"),
        (whole() | {"base": enforced}, "key 'base': <function enforced"),
        ([("base",)], "('base',) is no pair of key and status"),
        ([(1, enforced())], "is no pair of key and status"),
    ],
)
def test_problem_names_the_key(table: object, problem: str) -> None:
    offers = Offers(table)  # type: ignore[arg-type]
    assert any(problem in found for found in offers.problems()), offers.problems()
    with pytest.raises(PluginError) as caught:
        offers.validate(driver="mine")
    assert str(caught.value).startswith("cannot use the offers of driver 'mine': ")
    assert problem in str(caught.value)
    assert caught.value.fields()["plugin"] == "mine"
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_driver_may_be_named_later() -> None:
    with pytest.raises(PluginError) as caught:
        Offers({}).validate()
    assert str(caught.value).startswith("cannot use the offers: id ")
    assert caught.value.fields() == {}


def test_every_problem_is_found_and_a_long_list_is_counted() -> None:
    offers = Offers({})
    assert list(offers.problems()) == [f"id {id!r} has no status" for id in ids.IDS]
    with pytest.raises(PluginError) as caught:
        offers.validate()
    message = str(caught.value)
    assert all(repr(id) in message for id in first_ids(5))
    assert message.endswith(f"; and {len(ids.IDS) - 5} more")


def test_each_id_left_out_is_noticed() -> None:
    for left_out in ids.IDS:
        offers = Offers({id: enforced() for id in ids.IDS if id != left_out})
        assert offers.problems() == (f"id {left_out!r} has no status",)


def test_not_applicable_is_refused_exactly_where_the_catalogue_forbids_it() -> None:
    for id in ids.IDS:
        offers = Offers(whole() | {id: not_applicable("no such thing")})
        assert (offers.problems() == ()) is (id in ids.NOT_APPLICABLE_ALLOWED)


def test_making_one_looks_at_nothing() -> None:
    # A class body must not fail, nor take time; the loader validates.
    Offers({"nonsense": enforced()})
    Offers([("base", enforced()), ("base", enforced())])


def test_built_in_driver_may_not_leave_things_open() -> None:
    offers = Offers(
        whole()
        | {
            "tty.*": unclaimed("nobody looked"),
            "pid.ns": absent("luck", incidental=True),
            "net.ns": absent("no network namespace"),
        }
    )
    assert offers.problems() == ()
    assert offers.problems_for_builtin() == (
        "key 'tty.*' is unclaimed",
        "key 'pid.ns' is incidental",
    )
    assert Offers(whole()).problems_for_builtin() == ()


# --- what passes -------------------------------------------------------------------------------

ID = "pid.ns-death"
#: Status -> (a request passes, a --require passes); None: as the condition is.
STATUSES: list[tuple[Callable[[str], Status], bool | None, bool | None]] = [
    (lambda _: enforced(), True, True),
    (lambda _: absent("why not"), False, False),
    (lambda _: absent("why not", incidental=True), False, False),
    (lambda _: partial("why not", remains="a gap"), True, False),
    (lambda condition: when(condition, "why not"), None, None),
    (lambda _: unclaimed("why not"), False, False),
    (lambda _: not_applicable("why not"), False, False),
]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("row", STATUSES, ids=lambda row: row[0]("root").kind)
def test_every_status_under_every_condition(
    row: tuple[Callable[[str], Status], bool | None, bool | None], condition: str
) -> None:
    make, passes, required = row
    offers = Offers(whole() | {ID: make(condition)})
    assert offers.problems() == ()
    for truth in (True, False):
        # Every other fact has the opposite truth: the right one is asked.
        facts = dict.fromkeys(CONDITIONS, not truth) | {condition: truth}
        refusal = offers.refusal_for(ID, facts)
        assert refusal == (None if (truth if passes is None else passes) else "why not")
        assert offers.satisfies_require(ID, facts) is (truth if required is None else required)


def test_fact_that_nobody_found_is_refused() -> None:
    offers = Offers(whole() | {ID: when("job-not-root", "uid 0")})
    assert offers.refusal_for(ID, {}) == "uid 0"
    assert not offers.satisfies_require(ID, {})


def test_id_of_no_catalogue_is_refused() -> None:
    offers = Offers(whole())
    assert offers.status("pid.new-next-year") is None
    assert offers.refusal_for("pid.new-next-year", {}) == "no catalogue has this id"
    assert not offers.satisfies_require("pid.new-next-year", {})


def test_keys_that_are_no_ids_are_refused() -> None:
    offers = Offers(whole() | {"tty.*": enforced()})
    for key in ("base", "tty.*"):
        assert offers.status(key) is None
        assert not offers.satisfies_require(key, {})
        assert offers.refusal_for(key, {}) is not None


def test_id_without_status_is_refused() -> None:
    assert Offers({"base": enforced()}).refusal_for("pid.ns", {}) == "nothing is declared of it"


def test_driver_older_than_an_id_never_offers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "CATALOGUES", ("2026.1", "2027.1"))
    monkeypatch.setattr(ids, "IDS", {**ids.IDS, "pid.brand-new": ("container", ())})
    monkeypatch.setattr(ids, "ADDED_LATER", {"pid.brand-new": "2027.1"})
    old, new = Offers(whole()), Offers(whole(), catalogue="2027.1")
    assert old.problems() == new.problems() == ()
    assert old.status("pid.brand-new") is None
    assert old.refusal_for("pid.brand-new", {}) == "nothing is declared of it"
    assert new.status("pid.brand-new") == enforced()
    late = Offers(whole() | {"pid.brand-new": enforced()})
    assert late.problems() == ("key 'pid.brand-new' is not in catalogue 2026.1",)


def test_unknown_catalogue_is_a_problem_and_offers_nothing_new() -> None:
    offers = Offers(whole(), catalogue="1999.1")
    assert offers.problems() == ("catalogue '1999.1' is not known to this execdrv",)
    assert DEFAULT_CATALOGUE in ids.CATALOGUES


@pytest.mark.parametrize("condition", CONDITIONS)
def test_condition_is_true_exactly_if_its_fact_is(condition: str) -> None:
    others = dict.fromkeys(CONDITIONS, True)
    assert evaluate(condition, {condition: True})
    assert not evaluate(condition, others | {condition: False})
    assert not evaluate(condition, {})


def test_unknown_condition_is_an_error_that_names_it() -> None:
    with pytest.raises(PluginError, match="cannot evaluate condition 'moon-full'"):
        evaluate("moon-full", {"moon-full": True})


# --- as a value --------------------------------------------------------------------------------


def test_plain_form_is_json_and_says_everything() -> None:
    offers = Offers(
        whole()
        | {
            "tty.*": absent("no terminals", incidental=True),
            "fs.size": partial("on /tmp only", remains="the root has no limit"),
            "user.map": when("ns.user", "no user namespaces"),
        }
    )
    plain = json.loads(json.dumps(offers.to_plain()))
    assert plain["catalogue"] == "2026.1"
    assert plain["declared"]["base"] == {"kind": "enforced"}
    assert list(plain["offers"]) == list(ids.IDS)
    assert plain["offers"]["tty.alloc"] == {
        "kind": "absent",
        "reason": "no terminals",
        "incidental": True,
    }
    assert plain["offers"]["fs.size"] == {
        "kind": "partial",
        "reason": "on /tmp only",
        "remains": "the root has no limit",
    }
    assert plain["offers"]["user.map"] == {
        "kind": "when",
        "condition": "ns.user",
        "reason": "no user namespaces",
    }


def test_offers_are_frozen_values() -> None:
    one, other = Offers(whole()), Offers(list(whole().items()))
    one.status("pid.ns")
    assert one == other and hash(one) == hash(other)
    assert one != Offers(whole(base=absent("x")))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        one.entries = ()  # type: ignore[misc]
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):  # noqa: S301
        assert again == one and again.status("pid.ns") == enforced()


def test_offers_do_not_follow_the_mapping_they_were_made_from() -> None:
    table = whole()
    offers = Offers(table)
    table["base"] = absent("changed later")
    assert offers.status("io.big") == enforced()
