"""Object stores, in memory, in files and as S3: inputs come here once, results go there whole, the store counts."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from fatezero.cli import main
from fatezero.clips.video import read_clip, write_frames, write_video
from fatezero.commands.datasets import check_manifest
from fatezero.data.layout import lock_file
from fatezero.data.manifest import read_manifest
from fatezero.data.object_store import without_credentials
from fatezero.data.remote import RemoteRun, local_copy
from fatezero.errors import UserError
from fatezero.system.locking import locked
from fatezero.types import ClipSpec


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fsspec.AbstractFileSystem:
    """An empty store, and an empty folder for its copies."""
    monkeypatch.setenv("FATEZERO_HOME", str(tmp_path / "home"))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]  # it remembers folders after their files are gone
    return memory


def fill(store: fsspec.AbstractFileSystem, folder: Path) -> np.ndarray:
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3), np.uint8)
    write_frames(folder / "frames", frames)
    write_video(folder / "clip.webp", frames, 8)
    store.put(str(folder / "frames"), "/bucket/clips/frames", recursive=True)
    store.put_file(str(folder / "clip.webp"), "/bucket/clips/clip.webp")
    return frames


def test_clips_are_read_from_a_store(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    frames = fill(store, tmp_path)
    assert np.array_equal(read_clip(ClipSpec(path="memory://bucket/clips/frames")).frames, frames)
    assert len(read_clip(ClipSpec(path="memory://bucket/clips/clip.webp")).frames) == 3


def test_a_file_comes_here_once_until_it_changes(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store.pipe("/bucket/a.txt", b"one")
    first = local_copy("memory://bucket/a.txt")
    assert local_copy("memory://bucket/a.txt") == first
    store.pipe("/bucket/a.txt", b"two!")
    assert local_copy("memory://bucket/a.txt").read_bytes() == b"two!"
    assert first.read_bytes() == b"one"


def test_a_manifest_in_a_store_names_clips_beside_it(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    fill(store, tmp_path)
    entry = {"id": "a", "clip": "clips/frames", "source_prompt": "x", "target_prompt": "y"}
    store.pipe("/bucket/m.json", json.dumps({"edits": [entry]}).encode())
    (request,) = read_manifest("memory://bucket/m.json").requests
    assert request.clip.path == "memory://bucket/clips/frames"
    assert not check_manifest("memory://bucket/m.json").problems
    store.pipe("/bucket/m.json", json.dumps({"edits": [entry | {"clip": "../secret"}]}).encode())
    with pytest.raises(UserError, match="leads out of"):
        read_manifest("memory://bucket/m.json")


@pytest.mark.parametrize("url", ["memory://bucket/gone.mp4", "nosuchstore://bucket/clip.mp4"])
def test_what_is_not_there_is_named(url: str) -> None:
    with pytest.raises(UserError, match=url):
        read_clip(ClipSpec(path=url))


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    """A server that speaks S3, on this machine."""
    pytest.importorskip("s3fs", reason="the extra `s3` is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A run in a store of each kind, empty."""
    if request.param == "s3":
        address = request.getfixturevalue("s3_address")
        for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "y", "ENDPOINT_URL": address}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        fsspec.filesystem("s3").clear_instance_cache()
        bucket = tmp_path.name.replace("_", "-").lower()[-60:].strip("-")
        fsspec.filesystem("s3").mkdir(bucket)
        return Kept(f"s3://{bucket}/run")
    return Kept(f"file://{tmp_path}/store/run" if request.param == "file" else "memory://bucket/run")


class Kept:
    """A run in a store, and what a test does to it behind the program's back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.system, self.root = fsspec.core.url_to_fs(url)

    def names(self) -> set[str]:
        self.system.invalidate_cache()
        return {name.removeprefix(self.root + "/") for name in self.system.find(self.root)}

    def read(self, name: str) -> bytes:
        return self.system.cat_file(f"{self.root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        path = f"{self.root}/{name}"
        self.system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.system.pipe_file(path, content)

    def lose(self, name: str) -> None:
        for path in self.system.find(f"{self.root}/{name}") or [f"{self.root}/{name}"]:
            self.system.rm_file(path)


def make_result(run: RemoteRun, frames: int, name: str = "full/one", *, counted: bool = True) -> Path:
    """A result in the mirror, its frames of different sizes."""
    folder = run.folder / name
    (folder / "frames").mkdir(parents=True)
    for index in range(frames):
        (folder / f"frames/{index:05d}.png").write_bytes(b"pixels" * (index + 1))
    files = [file for file in folder.rglob("*") if file.is_file()]
    counts = {"files": len(files), "bytes": sum(file.stat().st_size for file in files)} if counted else {}
    (folder / "meta.json").write_text(json.dumps({"digest": f"of {frames}", **counts}), encoding="utf-8")
    return folder


def test_a_run_goes_to_the_store_and_its_state_comes_back(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RemoteRun(kept.url)
    result = make_result(run, 2)
    (run.folder / "full/plan.json").write_text('{"one": "of 2"}', encoding="utf-8")
    run.publish(result)
    run.publish(run.folder / "full/plan.json")
    assert kept.names() == {"full/plan.json", *(f"full/one/{n}" for n in ("meta.json", *FRAMES_OF_TWO))}
    monkeypatch.setenv("FATEZERO_HOME", str(run.folder.parent / "another machine"))
    other = RemoteRun(kept.url)
    other.fetch_state()
    assert (other.folder / "full/one/meta.json").read_bytes() == kept.read("full/one/meta.json")
    assert (other.folder / "full/plan.json").read_text(encoding="utf-8") == '{"one": "of 2"}'
    assert not (other.folder / "full/one/frames").exists()
    other.fetch_state()
    assert (other.folder / "full/one/meta.json").exists()


FRAMES_OF_TWO = ("frames/00000.png", "frames/00001.png")


def test_the_record_is_the_last_to_arrive(store: fsspec.AbstractFileSystem) -> None:
    run = RemoteRun("memory://bucket/run")
    run.publish(make_result(run, 2))
    assert [str(name) for name in store.store][-1].endswith("meta.json")


@pytest.mark.parametrize("lost", ["", "full/one/meta.json", "full/one/frames/00001.png", "full/one/frames"])
@pytest.mark.parametrize("counted", [True, False])
def test_what_the_store_has_lost_is_not_there(kept: Kept, lost: str, *, counted: bool) -> None:
    run = RemoteRun(kept.url)
    run.publish(make_result(run, 2, counted=counted))
    run.publish(make_result(run, 1, "full/sound", counted=counted))
    for name in [name for name in kept.names() if name.startswith(lost) and "sound" not in name]:
        kept.lose(name)
    run.fetch_state()
    assert not (run.folder / "full/one").exists()
    assert (run.folder / "full/sound/frames/00000.png").exists()


def test_counts_tell_another_machine_what_is_lost(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RemoteRun(kept.url)
    run.publish(make_result(run, 2))
    monkeypatch.setenv("FATEZERO_HOME", str(run.folder.parent / "another machine"))
    kept.write("full/one/frames/00001.png", b"cut")
    other = RemoteRun(kept.url)
    other.fetch_state()
    assert not (other.folder / "full/one/meta.json").exists()


def test_a_result_of_another_machine_replaces_the_one_here(kept: Kept) -> None:
    run = RemoteRun(kept.url)
    run.publish(make_result(run, 2))
    kept.write("full/one/meta.json", b'{"digest": "theirs"}')
    run.fetch_state()
    assert (run.folder / "full/one/meta.json").read_bytes() == b'{"digest": "theirs"}'
    assert not (run.folder / "full/one/frames").exists()


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"\xff", b'{"files": 2, "bytes": "many"}', b'{"files": NaN}'])
def test_a_torn_record_in_the_store_does_not_count(torn: bytes, store: fsspec.AbstractFileSystem) -> None:
    kept, run = Kept("memory://bucket/run"), RemoteRun("memory://bucket/run")
    kept.write("full/one/meta.json", torn)
    run.fetch_state()
    assert not (run.folder / "full/one").exists()


def test_fewer_frames_leave_none_of_the_old(kept: Kept) -> None:
    run = RemoteRun(kept.url)
    run.publish(make_result(run, 3))
    kept.write("full/one.failed.json", b"{}")
    kept.write("full/one/[0-9]*.png", b"a pattern that must stay a name")
    kept.write("full/one2/meta.json", b"{}")
    for file in (run.folder / "full/one/frames").iterdir():
        file.unlink()
    (run.folder / "full/one/frames").rmdir()
    result = make_result(RemoteRun(kept.url), 2, "full/new")
    (result / "frames").rename(run.folder / "full/one/frames")
    run.publish(run.folder / "full/one")
    assert kept.names() == {*(f"full/one/{n}" for n in ("meta.json", *FRAMES_OF_TWO)), "full/one2/meta.json"}


def test_plans_failures_and_tables_follow_the_store(kept: Kept) -> None:
    run = RemoteRun(kept.url)
    stale = ["experiment.json", "results.parquet", "full/plan.json", "full/x.failed.json", "old/plan.json"]
    for name in (*stale, "evaluation/scores.json"):
        (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / name).write_text("stale", encoding="utf-8")
    kept.write("full/plan.json", b"new")
    kept.write("results.parquet", b"table")
    run.fetch_state()
    here = {file.relative_to(run.folder).as_posix() for file in run.folder.rglob("*") if file.is_file()}
    assert here == {"full/plan.json", "results.parquet", "evaluation/scores.json"}
    assert (run.folder / "full/plan.json").read_bytes() == b"new"


def test_a_result_that_another_process_is_publishing_stays(store: fsspec.AbstractFileSystem) -> None:
    run = RemoteRun("memory://bucket/run")
    result = make_result(run, 2)
    fetching = threading.Thread(target=run.fetch_state)
    with locked(lock_file(result, None)):
        fetching.start()
        time.sleep(0.3)
        assert (result / "meta.json").exists()
        run.publish(result)
    fetching.join()
    assert (result / "frames/00001.png").exists()


@pytest.mark.parametrize("name", ["../../evil", "full/../../../meta.json", "/full/meta.json", "a/..\\b/meta.json"])
def test_names_in_a_store_lead_nowhere_else(store: fsspec.AbstractFileSystem, name: str, tmp_path: Path) -> None:
    run = RemoteRun("memory://bucket/run")
    store.pipe("/bucket/run/a.txt", b"1")
    store.store[f"/bucket/run/{name}"] = store.store["/bucket/run/a.txt"]
    run.fetch_state()
    assert not [*tmp_path.rglob("*.json")]
    with pytest.raises(UserError, match=r"leads out of|no regular file"):  # how old fsspec lists an empty name
        local_copy("memory://bucket/run")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_copy_is_bounded_and_of_regular_files(store: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    store.pipe("/bucket/clip/a.bin", b"x" * 600)
    store.pipe("/bucket/clip/b.bin", b"x" * 600)
    with pytest.raises(UserError, match="1200 bytes"):
        local_copy("memory://bucket/clip", limit=1000)
    assert len([*local_copy("memory://bucket/clip", limit=1200).iterdir()]) == 2
    os.mkfifo(tmp_path / "pipe")
    for odd in (f"file://{tmp_path}/pipe", "file:///dev/zero", f"file://{tmp_path}"):
        with pytest.raises(UserError, match="no regular file"):
            local_copy(odd)


ELSEWHERE = ["s3://no-such-bucket/run", "http://user:secret@127.0.0.1:9/run", "ftp://user:secret@127.0.0.1:9/run"]
ELSEWHERE += ["s3://", "s3://a\0b/run", "nosuchstore://bucket/run", "file:///proc/1/x/run", "sftp://u:secret@nowhere/x"]


@pytest.mark.parametrize("url", ELSEWHERE)
def test_stores_that_cannot_be_used_are_named(
    url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("s3"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_address"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
        fsspec.filesystem("s3").clear_instance_cache()
    run = RemoteRun(url)
    with pytest.raises(UserError) as told:
        run.publish(make_result(run, 1))
    assert without_credentials(url).split("\0")[0].rstrip("/") in str(told.value)
    assert "secret" not in str(told.value)
    with pytest.raises(UserError) as told:
        local_copy(url)
    assert "secret" not in str(told.value)


def test_credentials_are_not_shown() -> None:
    shown = without_credentials("ftp://me:p@ss@host/a and https://host/b?token=secret, s3://k:s@bucket/c@d")
    assert shown == "ftp://host/a and https://host/b?… s3://bucket/c@d"
    assert RemoteRun("ftp://me:secret@host/run").shown == "ftp://host/run"


def test_whoever_reads_a_state_file_sees_all_of_it(tmp_path: Path) -> None:
    run = RemoteRun(f"file://{tmp_path}/store")
    plan = run.folder / "full/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("old", encoding="utf-8")
    run.publish(plan)
    with (tmp_path / "store/full/plan.json").open(encoding="utf-8") as reader:
        plan.write_text("new", encoding="utf-8")
        run.publish(plan)
        assert reader.read() == "old"
    assert [file.name for file in (tmp_path / "store/full").iterdir()] == ["plan.json"]


@pytest.mark.slow
def test_an_emptied_store_is_filled_again(golden_folder: Path, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    write_video(tmp_path / "clip.webp", frames, 8)
    words = ["edit", f"--model={golden_folder / 'model'}", f"--clip={tmp_path / 'clip.webp'}", "--id=one", "--steps=1"]
    words += ["--source=a cat", "--target=a dog", "--device=cpu", f"--out=file://{tmp_path / 'store'}"]
    words += ["--height=64", "--width=64"]
    assert main([*words, "--frames=2"]) == 0
    (record,) = (tmp_path / "store").rglob("meta.json")
    shutil.rmtree(tmp_path / "store")
    assert main([*words, "--frames=2"]) == 0
    assert record.exists()
    assert len([*record.parent.glob("frames/*.png")]) == 2
    assert main([*words, "--frames=1", "--redo"]) == 0
    assert len([*record.parent.glob("frames/*.png")]) == 1
