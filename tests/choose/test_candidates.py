"""Which backbones a user names, and which of them may not be taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from d2timm import ConfigError
from d2timm.choose.candidates import DEFAULT, Wanted, check_licence, find_candidates, unfit
from d2timm.runs.choice import Candidate


def test_names_patterns_files_and_weights(tmp_path: Path) -> None:
    weights = tmp_path / "own.pth"
    weights.touch()
    listed = tmp_path / "list.txt"
    listed.write_text("# mine\nresnet18  # small\n\nconvnext_atto=random\n")
    found = find_candidates(f"@{listed},test_v*, resnet34={weights} ,swin_tiny_patch4_window7_224.ms_in22k")
    names = [wanted.name for wanted in found]
    assert names[:2] == ["resnet18", "convnext_atto"]
    assert set(timm.list_models("test_v*")) == set(names[2:-2])
    assert found[1].overrides[-1] == "model.backbone.bottom_up.pretrained=False"
    assert found[-2].overrides[-1] == f"model.backbone.bottom_up.checkpoint_path={weights}"
    assert found[-1] == Wanted("swin_tiny_patch4_window7_224.ms_in22k")


def test_the_default_candidates_have_weights_of_different_families() -> None:
    found = find_candidates(None)
    assert len(found) >= 14
    assert all(timm.is_model_pretrained(wanted.name) for wanted in found)
    modules = {timm.models.model_entrypoint(wanted.name.partition(".")[0]).__module__ for wanted in found}
    assert len(modules) >= 12, DEFAULT


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("resnet18", "at least two"),
        ("resnet18,resnet18", "resnet18 is named 2 times"),
        ("resnet18,resnet19", "resnet19"),
        ("resnet18,nothing_*", "nothing_*"),
        ("resnet18,resnet34=absent.pth", "absent.pth"),
        ("resnet18,@absent.txt", "@absent.txt"),
        ("resnet18,resnet34.nonsense", "nonsense"),
        (",", "these are 0"),
    ],
)
def test_mistakes_are_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_candidates(text)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "fits"),
    [
        ((None, None, None), True),
        (("commercial", None, None), False),
        (("cc-by-nc-4.0", None, None), True),
        ((None, 9e6, None), False),
        ((None, 10e6, 30.0), True),
        ((None, None, 29.0), False),
    ],
)
def test_limits(limits: tuple[str | None, float | None, float | None], fits: bool) -> None:
    candidate = Candidate("x", True, "cc-by-nc-4.0", parameters=10_000_000, milliseconds=29.5)
    assert bool(unfit(candidate, *limits)) != fits


def test_weights_of_ones_own_have_any_licence() -> None:
    assert not unfit(Candidate("x"), "commercial", None, None)
    assert unfit(Candidate("x", pretrained=True), "commercial", None, None)


def test_licences_that_no_weights_have_are_errors() -> None:
    check_licence("commercial")
    check_licence("apache-2.0")
    check_licence(None)
    with pytest.raises(ConfigError, match=r"did you mean apache-2\.0"):
        check_licence("apache2.0")
