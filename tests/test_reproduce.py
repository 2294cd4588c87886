"""The script that measures everything again: it goes on where it was, says by what, and lists commands that exist."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.reproduce import STUDIES, read_studies
from tests.integration.test_command_words import parsed

ROOT = Path(__file__).parents[1]
COMMANDS = [command for study in read_studies(ROOT / STUDIES) for command in study.commands]
LISTED = """
counted:
  results: results
  commands:
    - python -c "open('steps', 'a').write('one ')"
    - python -c "open('allowed').close(); open('steps', 'a').write('two')"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one study, whose second command fails until there is a file `allowed`."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "fatezero").mkdir()
    (tmp_path / STUDIES).write_text(LISTED, "utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit(tmp_path)
    return tmp_path


def commit(project: Path) -> None:
    for words in ("add experiments fatezero", "-c user.name=a -c user.email=a@b commit -qm all"):
        subprocess.run(["git", *words.split()], cwd=project, check=True)


def reproduce(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "eval")])}
    command = [sys.executable, "-m", "benchmarks.reproduce", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_stopped_study_goes_on_where_it_was_and_says_by_what_it_was_measured(project: Path) -> None:
    failed = reproduce(project)
    assert failed.returncode == 1
    assert "ended with status 1; mend what it says" in failed.stderr
    assert "benchmarks" not in failed.stderr.partition("ended with")[2]  # no stack trace of the script's own
    assert not (project / "results").exists()
    (project / "allowed").touch()
    assert reproduce(project).returncode == 0
    assert (project / "steps").read_text() == "one two"
    record = json.loads((project / "results/measured.json").read_text("utf-8"))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=project, capture_output=True, text=True, check=True).stdout
    assert record["commit"] == head.strip()
    assert set(record["checkpoints"]) >= {"picturebook", "picturebook-clip"}
    assert [len(ran) for ran in record["commands"]] == [2, 2]
    assert "measured already" in reproduce(project, "counted").stdout
    assert (project / "steps").read_text() == "one two"
    assert f"commit {record['commit'][:8]}" in reproduce(project, "--list").stdout


@pytest.mark.slow
def test_runs_of_other_code_are_not_taken_for_this_codes(project: Path) -> None:
    makes = """python -c "import os; os.makedirs('runs/made', exist_ok=True); open('allowed')" """
    (project / STUDIES).write_text(f"made:\n  results: results\n  commands:\n    - {makes}\n", "utf-8")
    commit(project)
    (project / "runs/made").mkdir(parents=True)
    assert "runs/made was not made by this commit" in reproduce(project).stderr
    (project / "runs/made").rmdir()
    assert "ended with status 1" in reproduce(project).stderr
    (project / "allowed").touch()
    assert reproduce(project).returncode == 0  # its own run may be there


@pytest.mark.slow
def test_a_card_beside_the_weights_is_no_code(project: Path) -> None:
    (project / "allowed").touch()
    assert reproduce(project).returncode == 0
    card = project / "fatezero/picturebook/weights/model/MODEL_CARD.md"
    card.parent.mkdir(parents=True)
    card.write_text("what was measured", "utf-8")
    assert "measured already" in reproduce(project).stdout
    commit(project)
    assert "measured already" in reproduce(project).stdout
    (card.parent / "weights.safetensors").touch()
    assert "commit or undo" in reproduce(project).stderr


@pytest.mark.slow
def test_changed_code_and_unknown_studies_are_refused(project: Path) -> None:
    assert "there is no study other: there are counted." in reproduce(project, "other").stderr
    (project / STUDIES).write_text(LISTED.replace("two", "three"), "utf-8")
    refused = reproduce(project)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"commit or undo {STUDIES} first" in refused.stderr


@pytest.mark.parametrize("listed", ["- a", "a: {results: b}", "a: [", "a: {results: b, commands: 3}"])
def test_what_is_no_list_of_studies_is_said(listed: str, project: Path) -> None:
    (project / STUDIES).write_text(listed, "utf-8")
    refused = reproduce(project, "--list")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "is no list of studies" in refused.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_studies_are_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command)
    if program == "python":
        assert Path(words[0]).is_file()
    elif program == "fatezero":
        assert parsed(words)
