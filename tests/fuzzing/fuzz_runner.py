"""Attacks the command line with mutated inputs, each in a process forked from one that has imported everything.

    python -m tests.fuzzing.fuzz_runner --inputs 5000 --seed 1
    python -m tests.fuzzing.fuzz_runner --seed 1 --only 1234 --keep /tmp/kept

Equal seeds make equal inputs. Status 1 where anything was found, each with the command that makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import pickle
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tests.fuzzing.fuzz_targets import FuzzCase

MOST_MEMORY = 3 * 10**9  # bytes of one process; twice that is not waited for
BROKEN_FUZZER = 99  # status of a process that could not make its input


def warm_up() -> None:
    """Import all that any command imports, so that forked processes need not."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TQDM_MININTERVAL": "5"}
    sys.dont_write_bytecode = True
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)  # a forked process has no threads of its parent's
    for name in ("fatezero", "fatezero_eval"):
        _import_all(importlib.import_module(name))
    diffusers = importlib.import_module("diffusers")
    transformers = importlib.import_module("transformers")
    for name in ("StableDiffusionPipeline", "UNet2DConditionModel", "AutoencoderKL", "DDIMScheduler"):
        getattr(diffusers, name)
    for name in ("CLIPTextModel", "CLIPTokenizer"):
        getattr(transformers, name)
    importlib.import_module("platform").processor()  # asks another program, once
    importlib.import_module("pyarrow.parquet")
    importlib.import_module("PIL.Image").init()
    gc.collect()
    gc.freeze()  # else every forked process walks through, and so copies, all that was imported


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def attack(seed: int, index: int, base: Path, patience: float, only: str | None) -> tuple[str, list[str], list[str]]:
    """Make one input and try it.

    Args:
        seed: of the whole attack.
        index: of the input.
        base: folder of the materials; the input's own is `cases/<index>` in it.
        patience: seconds until it counts as hung.
        only: the one target that is attacked; None attacks all.

    Returns:
        The target's name, the command line, and what was found.
    """
    from tests.fuzzing.fuzz_oracles import Ended, violations  # noqa: PLC0415  (after warming up)
    from tests.fuzzing.fuzz_targets import TARGETS  # noqa: PLC0415

    random = Random(f"{seed} {index}")
    shares = {target: share for target, share in TARGETS.items() if only in {None, target.__name__}}
    target = random.choices(list(shares), list(shares.values()))[0]
    case, notes = base / "cases" / str(index), base / "notes"
    for folder in (case, notes):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    child = os.fork()
    if child == 0:
        _become_the_attacked(lambda: target(case, base, random), case, notes)
    status, hung, memory = _wait(child, patience)
    text = {name: (notes / name).read_bytes() for name in ("out", "err", "events") if (notes / name).exists()}
    if status == BROKEN_FUZZER or not (notes / "made").exists():
        return target.__name__, [], [f"the fuzzer is broken: {text['err'][-2000:].decode(errors='replace')}"]
    made: FuzzCase = pickle.loads((notes / "made").read_bytes())
    seen = text.get("events", b"").decode("utf-8", "replace")
    ended = Ended(status, hung, memory, text["out"], text["err"], seen)
    return target.__name__, list(made.words), violations(made, ended, case)


def _become_the_attacked(make: Callable[[], FuzzCase], case: Path, notes: Path) -> NoReturn:
    """In the forked process: make the input, then run the command line as a process of its own would."""
    status = BROKEN_FUZZER
    try:
        os.setsid()
        importlib.import_module("fatezero.system.stopping").end_with_parent()
        _redirect(notes)
        home = case / "home"
        home.mkdir()
        os.environ |= dict.fromkeys(("HOME", "FATEZERO_HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(home))
        tempfile.tempdir = str(home)
        os.chdir(case)
        made = make()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**33, 2**33))
        (notes / "made").write_bytes(pickle.dumps(made))
        events = os.open(notes / "events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        importlib.import_module("tests.fuzzing.fuzz_oracles").watch(
            case, lambda line: os.write(events, line.encode("utf-8", "backslashreplace") + b"\n")
        )
        status = _status_of(made.words)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _status_of(words: Sequence[str]) -> int:
    """The exit status that a process of its own would have."""
    try:
        status = importlib.import_module("fatezero.cli").main(list(words))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    return int(status) & 0xFF


def _redirect(notes: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number, name in enumerate((Path("/dev/null"), notes / "out", notes / "err")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _wait(child: int, patience: float) -> tuple[int, bool, int]:
    """Status of a child, whether it had to be ended, and the bytes that it held at most."""
    deadline, hung = time.monotonic() + patience, False
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)  # what it may have started
            return os.waitstatus_to_exitcode(status), hung, usage.ru_maxrss * 1024
        if time.monotonic() > deadline or _memory(child) > 2 * MOST_MEMORY:
            hung = time.monotonic() > deadline
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _memory(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def make_materials_apart(base: Path) -> None:
    """Make the sound files in a forked process, which may start threads as it likes."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            (base / "notes").mkdir(parents=True)
            _redirect(base / "notes")
            importlib.import_module("tests.fuzzing.fuzz_targets").make_materials(base)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status, hung, _ = _wait(child, 600)
    if status or hung:
        raise SystemExit(f"the materials cannot be made:\n{(base / 'notes' / 'err').read_text(encoding='utf-8')}")


def run_attack(seed: int, indices: Iterable[int], base: Path, *, keep: bool, patience: float, only: str | None) -> int:
    """Try inputs one after another, and print what is found.

    Args:
        seed: of all inputs.
        indices: which inputs.
        base: folder for the materials and the inputs.
        keep: leave the inputs' folders there.
        patience: seconds until an input counts as hung, if it takes twice as many once more.
        only: the one target that is attacked; None attacks all.

    Returns:
        How many inputs did what none may.
    """
    found, tried, kinds = 0, Counter[str](), Counter[str]()
    started = time.monotonic()
    for index in indices:
        target, words, wrong = attack(seed, index, base, patience, only)
        if "hung" in wrong:  # or is the machine busy?
            target, words, wrong = attack(seed, index, base, 2 * patience, only)
        tried[target] += 1
        if wrong:
            found += 1
            kinds.update(f"{target}: {what}"[:200] for what in wrong)
            said = " ".join(repr(word)[:100] for word in words)
            print(f"{target} {index}: {'; '.join(wrong)[:600]}".encode("unicode_escape").decode("ascii"))
            print(f"  fatezero {said[:400]}")
            again = f"--seed {seed} --only {index}" + (f" --target {only}" if only else "")
            print(f"  again: python -m tests.fuzzing.fuzz_runner {again}", flush=True)
        if not keep:
            shutil.rmtree(base / "cases" / str(index), ignore_errors=True)
    print(f"\n{sum(tried.values())} inputs in {time.monotonic() - started:.0f} s: {dict(tried)}")
    for kind, count in sorted(kinds.items()):
        print(f"{count:5d} {kind}".encode("unicode_escape").decode("ascii"))
    print(f"{found} inputs did what none may.")
    return found


def run_from_command_line() -> int:
    """Read the options and attack; 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds make equal inputs")
    parser.add_argument("--only", type=int, help="one input by its number")
    parser.add_argument("--target", help="attack this one alone, such as manifests or caches (see fuzz_targets)")
    parser.add_argument("--keep", type=Path, help="leave materials and inputs in this folder, and use those there")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds until an input counts as hung")
    options = parser.parse_args()
    warm_up()
    known = [target.__name__ for target in importlib.import_module("tests.fuzzing.fuzz_targets").TARGETS]
    if options.target not in {None, *known}:
        parser.error(f"--target {options.target} is none of {', '.join(known)}")
    indices = range(options.inputs) if options.only is None else [options.only]
    with contextlib.ExitStack() as stack:
        base = (options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        if not (base / "published").exists():
            make_materials_apart(base)
        keep = options.keep is not None
        more = {"keep": keep, "patience": options.patience, "only": options.target}
        return int(bool(run_attack(options.seed, indices, base, **more)))


if __name__ == "__main__":
    sys.exit(run_from_command_line())
