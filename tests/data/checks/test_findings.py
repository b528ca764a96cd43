"""Findings: counts, samples, and how they are described."""

from __future__ import annotations

import pytest

from d2timm.data.checks.findings import EXAMPLES, KINDS, NOTE, REPAIRED, SKIPPED, STOP, Findings


def test_kinds_are_declared_completely() -> None:
    for name, kind in KINDS.items():
        assert kind.severity in (STOP, SKIPPED, REPAIRED, NOTE), name
        assert kind.task in ("", "segm", "keypoints"), name
        assert kind.text
        assert kind.consequence


def test_samples_of_what_is_left_out_are_all_listed() -> None:
    findings = Findings()
    for number in range(EXAMPLES + 50):
        findings.add("missing_image", f"{number}.png")
        findings.add("empty_image", f"{number}.png", f"{number}.jpg")
    assert findings.counts == {"missing_image": 150, "empty_image": 300}
    assert {kind: len(samples) for kind, samples in findings.samples.items()} == {
        "missing_image": 150,
        "empty_image": EXAMPLES,
    }


def test_nothing_is_added_without_samples() -> None:
    findings = Findings()
    findings.add("missing_image")
    assert (findings.counts, findings.samples, findings.lines(SKIPPED)) == ({}, {}, [])


def test_unknown_kind() -> None:
    with pytest.raises(KeyError):
        Findings().add("unheard", "x")


def test_kinds_in_their_order_and_for_tasks() -> None:
    findings = Findings()
    for kind in ("no_mask", "invalid_mask", "missing_image", "no_images", "invalid_keypoints"):
        findings.add(kind, "x")
    assert findings.of(STOP, SKIPPED) == ["no_images", "missing_image", "invalid_keypoints", "invalid_mask"]
    assert findings.of(SKIPPED, tasks=["bbox"]) == ["missing_image"]
    assert findings.of(SKIPPED, NOTE, tasks=["bbox", "segm"]) == ["missing_image", "invalid_mask", "no_mask"]
    assert findings.lines(SKIPPED, task="segm") == [
        "masks that are not polygons or run lengths (only the boxes are used): x"
    ]


@pytest.mark.parametrize(
    ("samples", "end"),
    [
        (["a"], "a"),
        (["a", "b"], "2, a; b"),
        (["a", "b", "c"], "3, a; b; c"),
        (["a", "b", "c", "d"], "4, a; b; c, …"),
    ],
)
def test_line_of_a_kind(samples: list[str], end: str) -> None:
    findings = Findings()
    findings.add("missing_image", *samples)
    assert findings.lines(SKIPPED) == [f"images that do not exist (left out): {end}"]


def test_samples_are_text_on_one_line() -> None:
    findings = Findings()
    findings.add("missing_image", "a\nb\x1b[31m.png", "\ud800.png", "写 é.png", 7, ValueError("x\ty"))
    assert findings.samples["missing_image"] == [
        "a\\nb\\x1b[31m.png",
        "\\ud800.png",
        "写 é.png",
        "7",
        "x\\ty",
    ]


def test_json_and_back() -> None:
    findings = Findings()
    findings.add("empty_image", "a")
    findings.add("missing_image", "b", "c")
    content = findings.as_dict()
    assert list(content) == ["missing_image", "empty_image"]
    assert content["missing_image"] == {
        "severity": SKIPPED,
        "count": 2,
        "text": "images that do not exist",
        "consequence": "left out",
        "samples": ["b", "c"],
    }
    assert Findings.from_dict({**content, "of_another_version": {}}) == findings
