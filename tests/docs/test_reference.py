"""The reference is what stands in the code, and nothing there is without a description."""

from __future__ import annotations

import pytest

from policies.load import KINDS
from policies.runlog import LAUNCHES, REQUESTS
from predictors.profile import MEASUREMENTS
from tilecast.keys import scenario_keys
from tools.reference import FOLDER, PAGES, described, made
from traces.columns import FIELDS

POLICIES = [(kind, name, cls) for kind, known in KINDS.items() for name, cls in known.items()]


@pytest.mark.parametrize("name", PAGES)
def test_a_committed_page_is_what_the_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == made(name), "make it anew: python -m tools.reference"


@pytest.mark.parametrize(("kind", "name", "cls"), POLICIES, ids=[f"{kind}-{name}" for kind, name, _ in POLICIES])
def test_a_policy_says_what_it_does_and_what_each_parameter_is(kind: str, name: str, cls: type) -> None:
    said, parameters = described(cls)
    assert said.endswith((".", ")"))
    for parameter in parameters:
        assert parameter.meaning.endswith("."), parameter
        assert parameter.takes, parameter
    page = made("policies.md")
    assert f"\n### {name}\n" in page


def test_every_key_stands_in_the_reference_with_what_it_means() -> None:
    page = made("scenario.md")
    for key in scenario_keys():
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{key.name}` |")]
        assert key.meaning
        assert key.meaning.replace("|", "\\|") in row


@pytest.mark.parametrize(
    "columns", [FIELDS, REQUESTS, LAUNCHES, MEASUREMENTS], ids=["trace", "run", "steps", "profile"]
)
def test_every_column_has_a_sentence(columns: dict) -> None:
    for name, column in columns.items():
        assert column.meaning[0].isupper() or column.meaning[0].isdigit(), name
        assert column.meaning.endswith("."), name


def test_every_option_of_every_verb_says_what_it_is() -> None:
    page = made("verbs.md").split("\n## tilecast ")[1:]
    assert len(page) >= 25
    for verb in page:
        for line in verb.splitlines():
            if line.startswith("| `"):
                assert line.rstrip(" |").rpartition("| ")[2].strip()[-1:] in (".", ")", "`"), line
