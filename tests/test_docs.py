"""The front door: links lead somewhere, the README says what is true, versions agree."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import fatezero
from fatezero_eval.scoring.suite import METRICS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(p for room in ("docs", "eval", "experiments", "datasets", "tests", "fatezero")
                                       for p in (ROOT / room).rglob("*.md"))]
)  # fmt: skip
LINK = re.compile(r"\]\((?P<path>[^)\s#]*)(?:#(?P<anchor>[^)\s]*))?\)")
FENCE = re.compile(r"^(`{3,4})[^\n]*\n.*?^\1", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them: lower case, no punctuation, each space a hyphen."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    texts = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-") for text in texts}


def dead_links(page: Path) -> Iterator[str]:
    for link in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, anchor = link["path"], link["anchor"]
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            yield link[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert not list(dead_links(page))


def test_dead_links_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A b\n[1](page.md#a-b) [2](#a-c) [3](other.md) [4](https://a.b/c)\n```\n[5](x.md)\n```\n", "utf-8"
    )
    assert list(dead_links(page)) == ["](#a-c)", "](other.md)"]


def test_paths_in_code_and_messages_lead_to_pages() -> None:
    sources = [path for room in ("fatezero", "eval", "tests", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    sources += (ROOT / "experiments").rglob("*.yaml")
    named = {
        found for path in sources for found in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert named
    assert {page for page in named if not (ROOT / page).is_file()} == set()


def test_the_readme_is_short_and_its_test_command_is_what_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.encode()) <= 6000
    setup, install, tests = (
        "python3 -m venv .venv",
        ".venv/bin/pip install -e '.[dev]'",
        ".venv/bin/python -m pytest -n 2",
    )
    assert f"\n{setup} && {install} && {tests}\n" in readme
    script = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert {setup, tests} <= set(script)


def test_the_version_stands_in_one_place_and_is_cited() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == fatezero.__version__
    assert 'version = "' not in (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool")[0]


@pytest.mark.parametrize("repository", ["", "https://example.org/lab/repository"])
def test_the_packages_page_leads_to_the_repository_that_published_it(repository: str, tmp_path: Path) -> None:
    """Metadata as built: links of the README are whole where the repository is known."""
    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", str(tmp_path)]
    environment = {"REPOSITORY_URL": repository, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    metadata = next(tmp_path.glob("*.egg-info/PKG-INFO")).read_text(encoding="utf-8")
    assert f"\nVersion: {fatezero.__version__}\n" in metadata
    at = f"{repository}/{{}}/v{fatezero.__version__}/" if repository else ""
    assert f"]({at.format('raw')}docs/edits.png)" in metadata
    assert f"]({at.format('blob')}CONTRIBUTING.md)" in metadata
    assert (f"\nProject-URL: Repository, {repository}\n" in metadata) is bool(repository)


def test_every_metric_has_a_card() -> None:
    cards = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    families = {re.split("[/@]", metric.name)[0] for metric in METRICS}
    assert {family for family in families if family not in cards} == set()
