"""Who may import whom, kept by reading the source. See docs/concepts/architecture.md for the picture."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GROUND = {"fatezero.errors", "fatezero.types", "fatezero.config", "fatezero.system"}
# Every room, from the ground up, and the rooms that it may import besides itself and the ground floor.
ROOMS: dict[str, set[str]] = {
    "fatezero.errors": set(),
    "fatezero.types": set(),
    "fatezero.config": set(),
    "fatezero.shipped": set(),
    "fatezero.system": set(),
    "fatezero.data": set(),
    "fatezero.clips": {"fatezero.data"},
    "fatezero.viewing": {"fatezero.data", "fatezero.clips"},
    "fatezero.attention": set(),
    "fatezero.blending": set(),
    "fatezero.source_attention": {"fatezero.attention"},
    "fatezero.diffusion": {
        *("fatezero.shipped", "fatezero.data", "fatezero.clips", "fatezero.attention", "fatezero.source_attention"),
    },
    "fatezero.edit_plan": {"fatezero.attention", "fatezero.source_attention", "fatezero.diffusion"},
    "fatezero.editing": {"fatezero.attention", "fatezero.blending", "fatezero.diffusion", "fatezero.edit_plan"},
    "fatezero.results": {
        *(
            "fatezero.clips",
            "fatezero.viewing",
            "fatezero.attention",
            "fatezero.source_attention",
            "fatezero.diffusion",
        ),
    },
    "fatezero.pipeline": {
        *("fatezero.clips", "fatezero.attention", "fatezero.blending"),
        *("fatezero.source_attention", "fatezero.diffusion"),
        *("fatezero.edit_plan", "fatezero.editing", "fatezero.results"),
    },
    "fatezero": {"fatezero.pipeline", "fatezero.results"},
    "fatezero.runs": {
        *("fatezero.data", "fatezero.clips", "fatezero.attention", "fatezero.source_attention", "fatezero.diffusion"),
        *("fatezero.viewing", "fatezero.edit_plan", "fatezero.results", "fatezero.pipeline"),
    },
    "fatezero.lightning": {
        *("fatezero.data", "fatezero.clips", "fatezero.diffusion", "fatezero.results", "fatezero.pipeline"),
        "fatezero.runs",
    },
    "fatezero.training": {
        *("fatezero.data", "fatezero.clips", "fatezero.attention", "fatezero.diffusion", "fatezero.pipeline"),
        "fatezero.lightning",
    },
    "fatezero.picturebook": {
        *("fatezero.shipped", "fatezero.data", "fatezero.clips", "fatezero.attention", "fatezero.blending"),
        *("fatezero.diffusion", "fatezero.results", "fatezero.pipeline", "fatezero.training"),
    },
    "fatezero.benchmarking": {
        *("fatezero.data", "fatezero.clips", "fatezero.attention", "fatezero.source_attention", "fatezero.diffusion"),
        *("fatezero.edit_plan", "fatezero.editing", "fatezero.pipeline", "fatezero.runs", "fatezero.picturebook"),
    },
    "fatezero_eval": set(),
    "fatezero_eval.options": set(),
    "fatezero_eval.file_names": set(),
    "fatezero_eval.metrics": set(),
    "fatezero_eval.networks": {"fatezero.data", "fatezero_eval.options"},
    "fatezero_eval.vlm": {"fatezero.data", "fatezero_eval.options", "fatezero_eval.networks"},
    "fatezero_eval.scoring": {
        *("fatezero.data", "fatezero.clips", "fatezero_eval.options", "fatezero_eval.file_names"),
        *("fatezero_eval.metrics", "fatezero_eval.networks", "fatezero_eval.vlm"),
    },
    "fatezero_eval.tables": {
        *("fatezero.data", "fatezero_eval.options", "fatezero_eval.file_names", "fatezero_eval.scoring"),
    },
    "fatezero_eval.validity": {
        *("fatezero.data", "fatezero.clips", "fatezero_eval.file_names", "fatezero_eval.scoring"),
        "fatezero_eval.tables",
    },
    "fatezero_eval.pages": {
        *("fatezero.data", "fatezero.clips", "fatezero_eval.file_names", "fatezero_eval.networks"),
        *("fatezero_eval.scoring", "fatezero_eval.tables"),
    },
    "fatezero_eval.people": {
        *("fatezero.data", "fatezero_eval.options", "fatezero_eval.file_names", "fatezero_eval.scoring"),
        *("fatezero_eval.tables", "fatezero_eval.pages"),
    },
    "fatezero_eval.tracking": {
        *("fatezero.data", "fatezero_eval.file_names", "fatezero_eval.scoring", "fatezero_eval.tables"),
    },
    "fatezero.commands": {
        *("fatezero.shipped", "fatezero.data", "fatezero.clips", "fatezero.diffusion", "fatezero.source_attention"),
        "fatezero.runs",
        *("fatezero.lightning", "fatezero.training", "fatezero.picturebook", "fatezero.benchmarking"),
        *("fatezero_eval.options", "fatezero_eval.networks", "fatezero_eval.scoring", "fatezero_eval.tables"),
        *("fatezero_eval.file_names", "fatezero_eval.validity", "fatezero_eval.pages", "fatezero_eval.people"),
        "fatezero_eval.tracking",
    },
    "fatezero.cli": {"fatezero", "fatezero.commands", "fatezero.diffusion"},
    "fatezero.__main__": {"fatezero.cli"},
}
# All that the metrics know of the editor's package.
OF_THE_METRICS = {"fatezero.errors", "fatezero.types", "fatezero.system", "fatezero.data", "fatezero.clips"}
KNOW_LIGHTNING = {"fatezero.lightning", "fatezero.training", "fatezero.picturebook", "fatezero_eval.scoring"}
KNOW_LIGHTNING |= {"fatezero_eval.tracking"}
FIND_FILES = {"fatezero.shipped", "fatezero_eval.pages"}  # may look for files that lie beside their code
TOP_FLOOR = 10


@cache
def modules() -> dict[str, Path]:
    """Every module of both packages, by dotted name."""
    found = {}
    for base, package in ((ROOT, "fatezero"), (ROOT / "eval", "fatezero_eval")):
        for path in (base / package).rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imported_names(path: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def arrows() -> dict[str, set[str]]:
    """By module, the modules of both packages that it imports."""
    return {
        module: {found for name in imported_names(path) if (found := _module_of(name)) and found != module}
        for module, path in modules().items()
    }


def _module_of(name: str) -> str:
    """The module that an imported name lies in; empty outside both packages."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name


def test_every_room_is_listed() -> None:
    assert {room_of(module) for module in modules()} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_point_one_way(room: str) -> None:
    floor = list(ROOMS)
    assert all(floor.index(other) < floor.index(room) for other in ROOMS[room]), "rooms are listed from the ground up"
    for module, imported in arrows().items():
        if room_of(module) == room:
            others = {room_of(other) for other in imported} - {room} - GROUND
            assert others <= ROOMS[room], module


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in arrows()[module]:
                walk(other, (*path, module))
            done.add(module)

    for module in arrows():
        walk(module, ())


def test_only_some_rooms_know_lightning() -> None:
    for module, path in modules().items():
        knows = any(name.split(".")[0] in {"lightning", "pytorch_lightning"} for name in imported_names(path))
        assert not knows or room_of(module) in KNOW_LIGHTNING, module


def test_the_metrics_need_no_editor() -> None:
    for module, imported in arrows().items():
        if module.startswith("fatezero_eval"):
            assert {room_of(name) for name in imported if not name.startswith("fatezero_eval")} <= OF_THE_METRICS, (
                module
            )


def detours(path: Path) -> Iterator[str]:
    """What reaches another module or its files in another way than by an import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and node.id == "__file__":
            yield "__file__"
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            said = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            loads = name in {"find_spec", "import_module", "__import__", "files", "as_file"}
            if loads and any(value.split(".")[0] in {"fatezero", "fatezero_eval"} for value in said):
                yield f"{name}({said[0]!r})"


def test_no_room_is_reached_by_a_detour() -> None:
    """Such as the path of another room's files: what a room needs of another is imported, or handed to it."""
    for module, path in modules().items():
        if room_of(module) not in FIND_FILES:
            assert not list(detours(path)), module


def test_the_top_floor_is_small() -> None:
    top = [path.stem for path in (ROOT / "fatezero").glob("*.py") if path.stem != "__init__"]
    assert len(top) <= TOP_FLOOR, sorted(top)


@pytest.mark.slow
def test_no_name_is_used_twice() -> None:
    """Of modules, rooms and classes, tests included."""
    paths = [*modules().values(), *(ROOT / "tests").rglob("*.py")]
    names = [path.parent.name if path.stem == "__init__" else path.stem for path in paths if path.stem != "conftest"]
    classes = [
        node.name
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    for kind in (names, classes):
        assert not {name for name in kind if kind.count(name) > 1}


def test_data_folders_hold_no_python() -> None:
    assert not [*ROOT.glob("datasets/**/*.py"), *ROOT.glob("experiments/**/*.py")]


def test_the_doorway_is_light() -> None:
    """Help must not wait for torch, whatever the verb; nor must the public names' package."""
    script = (
        "import sys, fatezero, fatezero.cli, fatezero.clips.video;"
        "from fatezero.commands.verbs import parameters_of;"
        "[parameters_of(verb) for name, verb in fatezero.cli.VERBS.items() if not verb.verbs];"
        "print(sorted({'torch', 'diffusers', 'lightning'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_there() -> None:
    import fatezero  # noqa: PLC0415

    assert {
        "BlendingConfig",
        "EditResult",
        "FateZero",
        "FusionConfig",
        "MethodConfig",
        "RuntimeConfig",
        "UserError",
    } <= {*fatezero.__all__}
    for name in fatezero.__all__:
        assert getattr(fatezero, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = fatezero.Nothing
