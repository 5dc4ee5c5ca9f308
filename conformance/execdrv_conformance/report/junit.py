"""A report as JUnit XML, for what reads test results: only PROVEN is a passed test there.

Pure. Neutral and incomplete verdicts are `skipped` with the reason, failures are `failure`, the
kit's own are `error`; what pytest calls xfail has the type `xfail`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from execdrv_conformance.report.text import explain_entry
from execdrv_conformance.report.words import printable, shorten

#: Neutral verdicts of which nothing was wanted: skipped, while the others are xfail.
PLAINLY_SKIPPED = ("NOT-APPLICABLE", "UNCLAIMED")


def format_junit(report: Mapping[str, Any]) -> str:
    """The XML document."""
    entries = report["checks"]
    driver = report["driver"]["declaration"]
    top = ElementTree.Element("testsuites", name="execdrv conformance")
    suite = ElementTree.SubElement(
        top,
        "testsuite",
        name=printable(driver["target"]),
        tests=str(len(entries)),
        failures=str(_count(entries, "fail")),
        errors=str(_count(entries, "kit")),
        skipped=str(_count(entries, "neutral") + _count(entries, "incomplete")),
        time=str(report["run"]["duration_s"]),
        timestamp=report["run"]["started"],
    )
    _add_properties(
        suite,
        {
            "driver": driver["target"],
            "driver.version": driver["version"],
            "catalogue": report["kit"]["catalogue"],
            "seed": report["run"]["seed"],
            "machine": report["machine"]["id"],
            "conclusion": report["conclusion"]["words"],
        },
    )
    for entry in entries:
        _add_case(suite, entry, report)
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _count(entries: Any, kind: str) -> int:
    return sum(entry["class"] == kind for entry in entries)


def _add_properties(parent: ElementTree.Element, values: Mapping[str, Any]) -> None:
    properties = ElementTree.SubElement(parent, "properties")
    for name, value in values.items():
        ElementTree.SubElement(properties, "property", name=name, value=printable(str(value)))


def _add_case(
    suite: ElementTree.Element, entry: Mapping[str, Any], report: Mapping[str, Any]
) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=f"conformance.{entry['domain']}",
        name=entry["id"],
        time=str(entry["took_s"] or 0),
    )
    _add_properties(
        case,
        {
            "guarantee": entry["id"],
            "verdict": entry["verdict"],
            "declared": entry["declared"]["kind"],
            "scored": str(entry["scored"]).lower(),
            "one-sided": str(entry["one_sided"]).lower(),
        },
    )
    message = printable(shorten(f"{entry['verdict']}: {entry['reason']}"))
    match entry["class"]:
        case "green":
            return
        case "neutral" if entry["verdict"] not in PLAINLY_SKIPPED:
            ElementTree.SubElement(case, "skipped", type="xfail", message=message)
        case "neutral" | "incomplete":
            ElementTree.SubElement(case, "skipped", type="skip", message=message)
        case kind:
            tag = "error" if kind == "kit" else "failure"
            element = ElementTree.SubElement(case, tag, type=entry["verdict"], message=message)
            driver, seed = report["driver"]["declaration"], report["run"]["seed"]
            element.text = explain_entry(entry, driver=driver, seed=seed)
