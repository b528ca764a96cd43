"""Paths on a command line: they arrive as typed, except for what is Hydra's syntax on purpose."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hypothesis import assume, example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from d2timm import ConfigError, get_config
from d2timm.config.lazy import parse, to_yaml
from d2timm.config.overrides import apply_overrides, parse_override
from d2timm.config.paths import MODEL_NAME, PATHS, quote, quote_paths

RECIPE = get_config("faster_rcnn_timm.py")
SMALL = {"data": {"root": None, "train_json": None}, "train": {"output_dir": "./output"}}
IN_TREE = sorted(key for key in PATHS if not key.startswith("hydra."))
NAMES = [
    "Photos (1)",
    " blanks  at the ends ",
    "a[1].json",
    "[a]",
    "x=1",
    "#1",
    "a & b; c | d",
    "$HOME",
    "a$",
    "1,2",
    "it's",
    '"a" or "b"',
    "'a' or 'b'",
    "é写.json",
    "C:\\data\\",
    "\\",
    "a\\,b",
    "2024",
    "1e3",
    "007",
    "-5",
    "1_000",
    "inf",
    "nan",
    "true",
    "False",
    "none",
    "None",
    "NULL",
    "",
    "{a: 1}",
    "choice(1)",
    "glob(*)",
    "int(3)",
    "line\nbreak",
    "*?<>!^`%@",
    "+key=value",
    "https://host/a?b=c&d#e",
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")


def from_train(*overrides: str, tree: Any = SMALL) -> Any:
    """The config of ``d2timm train``, as it is read again from the run folder."""
    cfg = apply_overrides(OmegaConf.create(tree, flags={"allow_objects": True}), overrides)
    return parse(to_yaml(cfg), "config.yaml")


def from_hydra(override: str, sweep: bool = False) -> Any:
    """The value that reaches a single run of ``d2timm sweep``, or with ``sweep`` the only run of a sweep."""
    rewritten = quote_paths(override, sweep)
    if sweep:
        (rewritten,) = one_by_one(rewritten)
    return parse_override(rewritten).value()


def one_by_one(override: str) -> list[str]:
    """The override in each run of a sweep, as Hydra's sweeper writes it."""
    batches = BasicSweeper.split_arguments([parse_override(override)], max_batch_size=None)
    return [text for batch in batches for (text,) in batch]


def several(value: str, key: str = "data.root") -> Sequence[Any]:
    """The values in the runs of a sweep."""
    runs = one_by_one(quote_paths(f"{key}={value}", sweep=True))
    assert [quote_paths(run) for run in runs] == runs, "the recorded command has the same value"
    return [parse_override(run).value() for run in runs]


def test_every_path_of_a_recipe_is_known() -> None:
    words = re.compile(r"(json|images|root|dir|path|checkpoint|file|folder|init_heads)$")

    def keys(node: Any, prefix: str = "") -> list[str]:
        if not isinstance(node, dict):
            return [prefix] if node is None or isinstance(node, str) else []
        return [key for name, value in node.items() for key in keys(value, f"{prefix}.{name}".strip("."))]

    named = {key for key in keys(OmegaConf.to_container(RECIPE, resolve=False)) if words.search(key)}
    assert named == {*IN_TREE} - {MODEL_NAME}


def test_name_of_a_model_may_contain_a_path() -> None:
    name = "local-dir:Photos (1), é"
    assert OmegaConf.select(from_train(f"{MODEL_NAME}={name}", tree=RECIPE), MODEL_NAME) == name
    assert several("resnet18,local-dir:a (1)", MODEL_NAME) == ["resnet18", "local-dir:a (1)"]
    assert quote_paths(f"{MODEL_NAME}=resnet18,resnet34") == f"{MODEL_NAME}=resnet18,resnet34"


@pytest.mark.parametrize("key", [key for key in IN_TREE if key != MODEL_NAME])
@pytest.mark.parametrize("name", ["Photos (1)/é, #1=x", "2024"])
def test_every_path_arrives_as_typed(key: str, name: str) -> None:
    assert OmegaConf.select(from_train(f"{key}={name}", tree=RECIPE), key) == name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_name_of_any_characters_arrives_as_typed(name: str, sign: str) -> None:
    assert from_train(f"++data.root={name}").data.root == name
    assert from_hydra(f"{sign}data.root={name}") == name


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("1,2", "a\\,b", "choice(1)", "glob(*)")]
)
def test_name_of_any_characters_arrives_as_typed_in_a_sweep(name: str) -> None:
    assert from_hydra(f"data.root={name}", sweep=True) == name
    assert several(quote(name) + ",other") == [name, "other"]


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text(
    "ab1,.=()[]{}'\"\\$~# \n\té", max_size=12
)


@given(TEXTS)
@example("${a}")
@example("\\${a}")
@example("a\\\\${b}")
def test_any_text_arrives_as_typed_or_as_quoted(text: str) -> None:
    # OmegaConf's escape of an interpolation, also of backslashes in front of it
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    typed = quote(escaped) if escaped == "null" or in_quotes(escaped) else escaped
    expected = os.path.expanduser(text)
    assert from_train(f"data.root={typed}").data.root == expected
    for value in (from_hydra(f"data.root={typed}"), from_hydra(f"data.root={quote(escaped)}", sweep=True)):
        assert OmegaConf.create({"root": value}).root == expected


def in_quotes(text: str) -> bool:
    """Whether Hydra reads a text as one that is in quotes."""
    return re.fullmatch(r"""(["'])(\\.|(?!\1)[^\\])*\1""", text, re.DOTALL) is not None


@given(st.lists(TEXTS, max_size=4))
def test_any_list_arrives(texts: list[str]) -> None:
    assume(not any("${" in text for text in texts))
    override = f"data.train_json=[{','.join(map(quote, texts))}]"
    expected = list(map(os.path.expanduser, texts))
    assert from_train(override).data.train_json == expected
    assert from_hydra(override) == expected
    assert from_hydra(override, sweep=True) == expected


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("null", None),
        ('"null"', "null"),
        ('"a, b"', "a, b"),
        ("'it\\'s'", "it's"),
        ("~/x (1)", "/home/me/x (1)"),
        ("~", "/home/me"),
        ("a~", "a~"),
        ("~no_such_user/x", "~no_such_user/x"),
        ("${train.output_dir}/x (1)", "./output/x (1)"),
        (r"\${a}", "${a}"),
        ("[2024, Photos (1) ,'c,d', null]", ["2024", "Photos (1)", "c,d", "null"]),
        ("[~/a,[b]]", ["/home/me/a", "[b]"]),
        ("[]", []),
        ("[ ]", []),
        ("[${data.root}/a,b]", ["r/a", "b"]),
    ],
)
def test_syntax_of_hydra(typed: str, value: Any) -> None:
    assert from_train("data.root=r", f"data.train_json={typed}").data.train_json == value


def test_entry_of_a_list_is_a_path() -> None:
    cfg = from_train("data.train_json=[a,b]", "data.train_json.1=2024")
    assert cfg.data.train_json == ["a", "2024"]


def test_list_is_one_path_for_a_key_without_lists_and_if_it_exists() -> None:
    assert from_train("data.root=[a,b]").data.root == "[a,b]"
    Path("[a,b]").mkdir()
    assert from_train("data.train_json=[a,b]").data.train_json == "[a,b]"
    assert from_hydra("data.train_json=[a,b]", sweep=True) == "[a,b]"


@pytest.mark.parametrize(
    ("typed", "values"),
    [
        ("a,b", ["a", "b"]),
        ("1e3, Photos (1) ,null", ["1e3", "Photos (1)", None]),
        ("choice(a,2024)", ["a", "2024"]),
        ("choice(1)", ["1"]),
        ('"a,b",c', ["a,b", "c"]),
        ("~/a,b", ["/home/me/a", "b"]),
        ("2024,10/images,x", ["2024,10/images", "x"]),
        ("x,2024,10", ["x", "2024,10"]),
    ],
)
def test_commas_separate_the_paths_of_a_sweep_unless_they_are_in_one_that_exists(
    typed: str, values: list[Any]
) -> None:
    Path("2024,10/images").mkdir(parents=True)
    assert several(typed) == values


def test_lists_in_a_sweep() -> None:
    assert several("[a,1],[b (1)]", "data.train_json") == [["a", "1"], ["b (1)"]]
    assert several("[a[1].json,b]", "data.train_json") == [["a[1].json", "b"]]
    assert several("[a,b],c", "data.train_json") == [["a", "b"], "c"]


@pytest.mark.parametrize("key", ["train.output_dir", "hydra.sweep.dir", "hydra.run.dir"])
def test_folder_that_a_run_creates_is_one_path(key: str) -> None:
    assert several("a, b", key) == ["a, b"]


@pytest.mark.parametrize("typed", ["a", "a b", "/x/y-1.json", "${a}/b", '"a,b"', "'a b'", "a,b"])
def test_override_that_hydra_reads_as_typed_stays_as_it_is(typed: str) -> None:
    assert quote_paths(f"data.root={typed}", sweep=True) == f"data.root={typed}"


@pytest.mark.parametrize(
    "override", ["train.seed=1", "data.name=a(b", "data.roots=1", "~data.root", "backbone=x"]
)
def test_other_overrides_stay_as_they_are(override: str) -> None:
    assert quote_paths(override) == override


@pytest.mark.parametrize("typed", ["${a", "${a b}", "x${}", "[a,${b]"])
def test_broken_interpolation_is_an_error_with_the_escape(typed: str) -> None:
    with pytest.raises(ConfigError, match=r"data.train_json=.*interpolation.*\\\$\{"):
        quote_paths(f"data.train_json={typed}")


@pytest.mark.parametrize("override", ["data.root=caf\udce9", "data.name=\udce9"])
def test_bytes_that_are_not_utf8_are_an_error_that_can_be_printed(override: str) -> None:
    with pytest.raises(ConfigError, match="not valid UTF-8") as caught:
        quote_paths(override)
    str(caught.value).encode()
