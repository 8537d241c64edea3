"""The page on de-identification: its commands run, its tables equal the code."""

import re
from pathlib import Path

from dicomdask.policy import OPTION_CODES, POLICIES, describe, load_policy
from dicomdask.show.policies import ACTIONS
from tests.pages import commands, page_text, run_commands, without_cluster

PAGE = "deidentify.md"
TEXT = page_text(PAGE)


def rows(name: str, pattern: str) -> list[tuple[str, ...]]:
    table = TEXT.split(f"<!-- {name}", 1)[1].split(f"<!-- /{name}", 1)[0]
    return re.findall(pattern, table, re.MULTILINE)


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    found = commands(PAGE)
    assert len(found) == 14
    done = run_commands(without_cluster(found), tmp_path)
    assert "7 stored" in done.stdout
    assert re.search(
        r"^StudyDescription +C +policy file, line 4: tells", done.stdout, re.M
    )
    assert "id_old,id_new" in done.stdout
    assert "CompressedSamples" not in done.stdout  # the patient of CT_small.dcm


def test_the_table_of_options_equals_the_code() -> None:
    found = rows("options", r"^\| `([a-z-]+)` \| (\d+) \|")
    assert dict(found) == {name: code for name, (code, _) in OPTION_CODES.items()}


def test_the_table_of_actions_equals_the_code() -> None:
    assert dict(rows("actions", r"^\| `(.)` \| (.*) \|$")) == ACTIONS
    told = {action for _, action, _ in describe(load_policy("research"))}
    assert told == set(ACTIONS)


def test_the_policies_and_their_size_are_those_of_the_code() -> None:
    assert all(f"| `{name}`" in TEXT for name in POLICIES)
    [number] = re.findall(r"whole policy, ([\d,]+) attributes", TEXT)
    assert (
        abs(int(number.replace(",", "")) - len(describe(load_policy("research")))) < 60
    )
