"""Who is best, how sure that is, and what the sentence says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.found import write_matches
from helpers.run_folders import put

from d2timm.choose.verdict import compare_finalists, correlate, describe_choice, pick
from d2timm.runs.choice import Candidate, Choice, Comparison, Final, Rung, Stage, Verdict

IMAGES = 80


def put_final(folder: Path, name: str, share: float, seed: int) -> Final:
    """A run that finds this share of the objects, one in each image."""
    run = folder / "finals" / f"{name}-{seed}"
    score = write_matches(run, share, [seed, *name.encode()], IMAGES)
    put(run, score)
    return Final(name, f"finals/{name}-{seed}", seed, score=score, counts=True)


def make_choice(folder: Path, shares: dict[str, float], speeds: dict[str, float], start: int = 0) -> Choice:
    finals = [
        put_final(folder, name, share, seed)
        for name, share in shares.items()
        for seed in range(start, start + 3)
    ]
    return Choice(
        candidates=[Candidate(name, milliseconds=speeds[name]) for name in shares],
        finals=finals,
        seeds=3,
        stages=[Stage("finals", seconds=600.0)],
    )


def test_a_clear_difference_is_sure(tmp_path: Path) -> None:
    choice = make_choice(tmp_path, {"good": 0.9, "bad": 0.4}, {"good": 20.0, "bad": 5.0})
    best, other = compare_finalists(tmp_path, choice, "bbox/AP")
    assert (best.name, best.behind, best.tied, other.tied) == ("good", 0.0, False, False)
    assert best.probability > 0.99
    assert best.low < best.score < best.high
    assert other.behind == pytest.approx(best.score - other.score)
    assert pick([best, other], choice.candidates) is best
    choice.verdict = Verdict("good", compared=[best, other])
    sentence = describe_choice(choice, "box AP 61.2 ± 0.8 on 120 held-out photographs", 20.0)
    assert sentence.startswith(
        "good is best with more than 99% (box AP 61.2 ± 0.8 on 120 held-out photographs, 20 ms"
    )
    assert f"bad is {other.behind:.1f} AP lower and 4.0 times as fast" in sentence


def test_identical_candidates_tie_in_nine_of_ten_repeats(tmp_path: Path) -> None:
    ties = 0
    for repeat in range(10):
        shares = {"one": 0.6, "two": 0.6}
        choice = make_choice(tmp_path / str(repeat), shares, dict.fromkeys(shares, 5.0), start=3 * repeat)
        ties += compare_finalists(tmp_path / str(repeat), choice, "bbox/AP")[1].tied
    assert ties >= 9


def test_of_a_tie_the_faster_one_is_taken(tmp_path: Path) -> None:
    speeds = {"slow": 30.0, "fast": 10.0, "bad": 1.0}
    choice = make_choice(tmp_path, {"slow": 0.71, "fast": 0.7, "bad": 0.2}, speeds)
    compared = compare_finalists(tmp_path, choice, "bbox/AP")
    chosen = pick(compared, choice.candidates)
    assert chosen.name == "fast"
    choice.verdict = Verdict("fast", compared=compared)
    sentence = describe_choice(choice, "box AP 60.0", 10.0)
    assert "tie" in sentence
    assert "slow" in sentence
    assert "10 ms" in sentence


def test_what_it_takes_to_be_surer() -> None:
    compared = [
        Comparison("a", 50.0, 48.0, 52.0, 0.0, 0.8, False),
        Comparison("b", 48.0, 46.0, 50.0, 2.0, 0.2, True),
    ]
    choice = Choice(
        candidates=[Candidate("a", milliseconds=10.0), Candidate("b", milliseconds=20.0)],
        seeds=2,
        stages=[Stage("finals", seconds=7200.0)],
        verdict=Verdict("a", compared=compared),
    )
    assert "To be surer than 80%: about 2.0 h more" in describe_choice(choice, "x", None)
    choice.seeds = 3
    assert "4.0 h more" in describe_choice(choice, "x", None)
    choice.verdict = Verdict("a", compared=[compared[0], dataclasses.replace(compared[1], behind=0.1)])
    assert "more images" in describe_choice(choice, "x", None)
    compared[0].probability = 0.99
    assert "surer" not in describe_choice(choice, "x", None)


def test_without_finals_the_last_rung_is_compared(tmp_path: Path) -> None:
    put(tmp_path / "rungs" / "a", 40.0)
    put(tmp_path / "rungs" / "b", 50.0)
    candidates = [Candidate(name, rungs=[Rung(1, 1, score)]) for name, score in (("a", 40.0), ("b", 50.0))]
    compared = compare_finalists(tmp_path, Choice(candidates=candidates), "bbox/AP")
    assert [one.name for one in compared] == ["b", "a"]


def test_early_scores_are_correlated_with_later_ones() -> None:
    candidates = [
        Candidate(name, transfer=transfer, rungs=[Rung(1, 1, rung)])
        for name, transfer, rung in (("a", 0.1, 3.0), ("b", 0.2, 2.0), ("c", 0.3, 1.0))
    ]
    finals = [
        Final(name, name, 0, score=score, counts=True) for name, score in (("a", 9), ("b", 8), ("c", 7))
    ]
    found = correlate(Choice(candidates=candidates, finals=finals, plan=[1.0]))
    assert found == pytest.approx({"features": -1.0, "rung 1": 1.0})
    assert correlate(Choice(candidates=candidates[:2])) == {}


def test_draws_without_an_object_do_not_count(tmp_path: Path) -> None:
    finals = []
    for name, share in (("good", 1.0), ("bad", 0.0)):
        run = tmp_path / "finals" / name
        put(run, write_matches(run, share, 0, images=3, without=2))
        finals.append(Final(name, f"finals/{name}", 0, score=100 * share, counts=True))
    best, other = compare_finalists(tmp_path, Choice(finals=finals), "bbox/AP")
    assert (best.name, best.probability, other.probability) == ("good", 1.0, 0.0)
    assert (best.low, best.high) == pytest.approx((100, 100))
