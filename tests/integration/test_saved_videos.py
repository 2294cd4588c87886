"""An edit's own videos: they are shown when the source's frames are, and the sound goes with the edited one."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from fatezero.cli import main
from fatezero.config import MethodConfig, ModelOptions
from fatezero.diffusion.checkpoint import Checkpoint
from fatezero.diffusion.model_families.unet import UNetBackbone
from fatezero.pipeline import FateZero
from fatezero.runs.jobs import EditJob
from fatezero.runs.saving import save_result
from fatezero.types import Clip, ClipSpec, EditRequest, Sound

SOURCE, TARGET = "a silver jeep driving down a road", "a silver car driving down a road"
TIMES = (0.0, 0.2, 0.25, 0.5, 0.9)
COPIED = "The sound is kept as it is (aac)."


@pytest.fixture(scope="module")
def talkie(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of 64 x 96 at uneven times, beside a second of noise."""
    path = tmp_path_factory.mktemp("clips") / "talkie.mp4"
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 16_000)).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=1000, options={"x264-params": "bframes=0"})
        video.width, video.height, video.pix_fmt, video.codec_context.thread_count = 96, 64, "yuv420p", 1
        audio = container.add_stream("aac", rate=16_000)
        audio.codec_context.layout = "mono"
        for index, time in enumerate(TIMES[:-1]):
            frame = np.full((64, 96, 3), 90, np.uint8)
            frame[16:48, 8 + 8 * index : 40 + 8 * index] = (200, 200, 220)
            picture = av.VideoFrame.from_ndarray(frame)
            picture.pts, picture.time_base = round(1000 * time), Fraction(1, 1000)
            for packet in video.encode(picture):
                packet.duration = round(1000 * (TIMES[index + 1] - time))
                container.mux(packet)
        sound = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 16_000, 0
        for packet in (*video.encode(), *audio.encode(sound), *audio.encode()):
            if packet.stream is video:
                packet.duration = round(1000 * (TIMES[-1] - TIMES[-2]))
            container.mux(packet)
    return path


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def sound_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.audio) if p.size] if container.streams.audio else []


@pytest.mark.parametrize("kept", [True, False])
def test_a_result_keeps_times_and_sound(
    backbone32: UNetBackbone, golden_folder: Path, talkie: Path, tmp_path: Path, kept: bool
) -> None:
    method = MethodConfig(steps=2)
    editor = FateZero(backbone32, report=lambda _: None)
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), np.uint8)
    words = ("jeep",)
    result = editor.edit(frames, SOURCE, TARGET, method=method, edited_words=words)
    request = EditRequest(
        id="one", clip=ClipSpec(path=str(talkie)), source_prompt=SOURCE, target_prompt=TARGET, edited_words=words
    )
    job = EditJob(
        request, method, tmp_path / "full" / "one", Checkpoint(ModelOptions(model="tiny"), golden_folder / "model")
    )
    clip = Clip(frames, TIMES, ("Decoded.",), Sound(talkie, 0.0) if kept else None)
    assert save_result(job, result, clip, editor) == (("Decoded.", COPIED) if kept else ("Decoded.",))
    for name in ("edited.mp4", "side_by_side.mp4", "masks.mp4"):
        np.testing.assert_allclose(times_of(job.folder / name), TIMES[:-1], atol=1e-3)
        assert bool(sound_of(job.folder / name)) == (kept and name == "edited.mp4")
    record = json.loads((job.folder / "meta.json").read_text())
    assert record["times"] == list(TIMES)
    assert record["fps"] == pytest.approx(4 / 0.9)
    assert record["sound"] == (COPIED if kept else None)
    assert record["source_notes"] == (["Decoded.", COPIED] if kept else ["Decoded."])
    even = save_result(job, result, replace(clip, timing=8.0), editor)
    assert even[-1] == (COPIED if kept else "Decoded.")
    assert json.loads((job.folder / "meta.json").read_text())["times"] is None


def test_a_clip_that_python_reads_keeps_its_times_and_sound(
    backbone32: UNetBackbone, talkie: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    editor = FateZero(backbone32, report=said.append)
    clip = editor.read(ClipSpec(path=str(talkie), frames=3, height=64, width=96))
    assert said[-1] == "Took frames 0 to 2 (3 of 4)."
    assert not any("Decoded" in sentence for sentence in said)  # of no concern to who edits
    result = editor.edit(clip, SOURCE, TARGET, method=MethodConfig(steps=2))
    assert result.source is clip
    assert str(talkie) in repr(result)
    assert result.save(tmp_path / "edited.mp4")[-1].startswith("The sound ")
    np.testing.assert_allclose(times_of(tmp_path / "edited.mp4"), TIMES[:3], atol=1e-3)
    assert sound_of(tmp_path / "edited.mp4")
    assert min(editor.read(talkie).frames.shape[1:3]) == 512  # the checkpoint's own scale


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--segment=2", "--norm_scope=frame")], ids=["whole", "segments"])
def test_an_edit_keeps_the_clips_times_and_sound(
    golden_folder: Path, talkie: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    asked = {"source_prompt": SOURCE, "target_prompt": TARGET}
    clips = {"kept": {}, "dropped": {"audio": "drop"}, "range": {"start": 1, "frames": 3}, "cut": {"frames": 2}}
    lines = [{"id": name, "clip": {"path": talkie.name, **more}, **asked} for name, more in clips.items()]
    manifest = talkie.parent / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    options = {"model": golden_folder / "model", "manifest": manifest, "steps": 2, "out": tmp_path, "device": "cpu"}
    options |= {"height": 64, "width": 96}
    assert main(["edit", *(f"--{name}={value}" for name, value in options.items()), *words]) == 0
    results = {name: tmp_path / "fatezero" / name / "edited.mp4" for name in clips}
    for name, (first, last) in {"kept": (0, 4), "dropped": (0, 4), "range": (1, 4), "cut": (0, 2)}.items():
        np.testing.assert_allclose(times_of(results[name]), np.subtract(TIMES[first:last], TIMES[first]), atol=1e-3)
    assert sound_of(results["kept"]) == sound_of(talkie)
    assert not sound_of(results["dropped"])
    with av.open(str(results["range"])) as container:
        lasts = sum(frame.samples for frame in container.decode(audio=0)) / 16_000
    assert lasts == pytest.approx(0.8, abs=0.07), "from the frame at 0.2 s on, to the sound's own end"
    with av.open(str(results["cut"])) as container:
        lasts = sum(frame.samples for frame in container.decode(audio=0)) / 16_000
    assert lasts == pytest.approx(0.25, abs=0.07)
    said = capsys.readouterr()
    assert COPIED in said.out + said.err
    assert "The sound of these frames is kept, encoded anew (aac to aac)." in said.out + said.err
