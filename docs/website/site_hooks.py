"""What the site needs beside MkDocs: the repository's files that pages link to, help of all commands, and equations.

Pages link to each other, and to files of the repository, by relative paths, as GitHub shows them. What lies outside
docs/ joins the site under its own path, so that a page always leads to the files of its own version.
"""

from __future__ import annotations

import ast
import html
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from fatezero.cli import VERBS, main
from fatezero.commands.verbs import Verb

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?=[#)])")
CODE = re.compile(r"^<!-- code: (?P<module>[\w.]+)\.(?P<name>\w+) -->$", re.MULTILINE)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
SHOWN_AS_CODE = {".py": "python", ".yaml": "yaml"}
NOTEBOOK = ".ipynb"
COMMANDS_PAGE = "reference/cli.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to outside docs/, what is linked from there, and notebooks as pages."""
    waiting = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    while waiting:
        for target in _linked(waiting.pop()):
            outside = DOCS not in target.parents or target.suffix == NOTEBOOK
            if files.get_file_from_path(_uri(target)) is None and outside:
                files.append(_joined(target, config))
                if target.suffix == ".md":
                    waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their files are in the site; add the help of all commands to their page."""
    if page.file.src_uri == COMMANDS_PAGE:
        markdown += "".join(_command(words, verb) for words, verb in _commands(VERBS))
    if page.file.abs_src_path is None:
        return markdown
    folder, here = Path(page.file.abs_src_path).parent, Path(page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        target = _file(folder / link["path"])
        return link["path"] if target is None else os.path.relpath(_uri(target), here)

    return CODE.sub(_code, LINK.sub(led, markdown))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Equations as MathML, which browsers show without a script."""

    def shown(found: re.Match[str]) -> str:
        equation: str = convert(html.unescape(found[2]).strip(), display="block" if found[1] == "div" else "inline")
        return equation

    return EQUATION.sub(shown, content)


def _linked(page: Path) -> Iterator[Path]:
    """The files that a page links to by relative paths."""
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        if (target := _file(page.parent / link["path"])) is not None:
            yield target


def _file(path: Path) -> Path | None:
    """A file of the repository, of a folder its README; None where there is none."""
    path = Path(os.path.normpath(path))
    path = path / "README.md" if path.is_dir() else path
    return path if path.is_file() and ROOT in path.parents else None


def _uri(target: Path) -> str:
    """Where a file of the repository is in the site's sources."""
    uri = target.relative_to(DOCS if DOCS in target.parents else ROOT)
    if target.suffix == NOTEBOOK:
        return uri.with_suffix(".md").as_posix()
    return f"{uri.as_posix()}.md" if target.suffix in SHOWN_AS_CODE else uri.as_posix()


def _joined(target: Path, config: MkDocsConfig) -> File:
    """A file for the site: as it is, or code and notebooks as pages."""
    if target.suffix == NOTEBOOK:
        return File.generated(config, _uri(target), content=_notebook(target))
    language = SHOWN_AS_CODE.get(target.suffix)
    if language is None:
        return File.generated(config, _uri(target), abs_src_path=str(target))
    name, code = target.relative_to(ROOT).as_posix(), target.read_text(encoding="utf-8")
    return File.generated(config, _uri(target), content=f"# {name}\n\n````{language}\n{code}\n````\n")


def _notebook(target: Path) -> str:
    """A notebook's cells, and where the notebook itself is."""
    cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    shown = [f"```python\n{text}\n```" if kind == "code" else text for text, kind in texts]
    shown.insert(1, f"[Download]({target.name}) it to run it: a result shows itself there.")
    return "\n\n".join(shown) + "\n"


def _code(found: re.Match[str]) -> str:
    """A function or class of the packages, as it is written."""
    file = found["module"].replace(".", "/") + ".py"
    text = (ROOT / file).read_text(encoding="utf-8")
    node = next(node for node in ast.parse(text).body if getattr(node, "name", None) == found["name"])
    return f'```python title="{file}"\n{ast.get_source_segment(text, node)}\n```'


def _commands(verbs: Mapping[str, Verb], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Verb]]:
    """Every command by its words."""
    for name, verb in verbs.items():
        if verb.verbs:
            yield from _commands(verb.verbs, (*before, name))
        else:
            yield (*before, name), verb


def _command(words: tuple[str, ...], verb: Verb) -> str:
    """A section with a command's own help."""
    os.environ["COLUMNS"] = "88"
    with redirect_stdout(StringIO()) as said, suppress(SystemExit):
        main([*words, "--help"])
    sentence = verb.help[:1].upper() + verb.help[1:]
    return f"\n## fatezero {' '.join(words)}\n\n{sentence}.\n\n```text\n{said.getvalue()}```\n"
