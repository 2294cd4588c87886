"""Models that answer on this machine: the judge as a classifier of captions, and transformers from a folder."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from fatezero.errors import UserError
from fatezero.picturebook.benchmark.edits import small_benchmark
from fatezero.picturebook.benchmark.recipes import render_clip
from fatezero.shipped import JUDGE
from fatezero_eval.networks.array_cache import ArrayCache
from fatezero_eval.networks.clip import load_clip
from fatezero_eval.networks.flow import Dis
from fatezero_eval.networks.loading import Networks
from fatezero_eval.options import AskingOptions, ScoringOptions
from fatezero_eval.scoring.checks import runnable_metrics, selected
from fatezero_eval.scoring.one_pass import score
from fatezero_eval.scoring.suite import choose
from fatezero_eval.scoring.windows import ClipVersions, in_memory
from fatezero_eval.vlm import questions
from fatezero_eval.vlm.answerers import load_interviewer
from fatezero_eval.vlm.clip_answerer import CaptionClassifier
from fatezero_eval.vlm.local_answerer import load_local
from fatezero_eval.vlm.questions import AskedEdit
from fatezero_eval.vlm.shown_frames import ShownFrames

EDIT = AskedEdit(source_prompt="a jeep on the road", target_prompt="a jeep in the snow")


@pytest.mark.slow
def test_the_shipped_judge_answers_picturebooks_questions_exactly(tmp_path: Path) -> None:
    """Objects, shapes, colours, backgrounds and styles: two edits of each; the true edit, and the clip unedited."""
    interviewer = load_interviewer(AskingOptions(), load_clip(str(JUDGE)), tmp_path)
    metrics, networks = choose(("vlm_yes_no", "vlm_choice")), Networks(flow=Dis())
    categories = []
    for (edit,) in small_benchmark(4):
        source, true_edit = render_clip(edit.recipe).frames, render_clip(edit.recipe.edited(edit.target)).frames
        found = []
        for frames in (true_edit, source):
            clip = ClipVersions(
                edited=in_memory(frames),
                source=in_memory(source),
                source_prompt=edit.recipe.scene.caption,
                target_prompt=edit.target.caption,
            )
            found.append([part.value for part in score(clip, metrics, networks, interviewer)])
        assert found == [[1.0, 1.0], [0.0, 0.0]], edit
        categories.append(edit.category)
    assert sorted(categories) == sorted(["object", "shape", "attribute", "background", "style"] * 2)


def test_a_clip_grades_nothing_and_says_so() -> None:
    clip = ClipVersions(
        edited=in_memory(np.zeros((2, 32, 32, 3), np.uint8)),
        source=in_memory(np.zeros((2, 32, 32, 3), np.uint8)),
        source_prompt=EDIT.source_prompt,
        target_prompt=EDIT.target_prompt,
    )
    judge = load_clip(str(JUDGE))
    with pytest.raises(UserError, match="a CLIP reads captions alone"):
        CaptionClassifier(judge, ArrayCache())(
            questions.RENDERING.of_edit(EDIT)[0], ShownFrames(next(clip.edited(2))), 0
        )
    report = {name: (able, why) for name, able, why in runnable_metrics(ScoringOptions(judge=str(JUDGE)))}
    assert report["vlm_yes_no@1"] == (True, "")
    assert "--vlm http://host:8000/v1" in report["vlm_rendering@1"][1]
    with pytest.raises(UserError, match="vlm_rendering cannot run: give --vlm"):
        selected(ScoringOptions(judge=str(JUDGE), metrics=("vlm_rendering",)))
    there = AskingOptions(vlm="http://127.0.0.1:1/v1", vlm_model="tiny")
    assert selected(ScoringOptions(metrics=("vlm_rendering",), asking=there))
    interviewer = load_interviewer(AskingOptions(), judge, None)
    (unasked,) = score(clip, choose(("vlm_choice/stated",)), Networks(flow=Dis()), interviewer)
    assert (unasked.value, unasked.reason) == (None, "the benchmark states no such questions about this edit")


TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}answer: {% endif %}"
)
PATCH, SIDE = 8, 16


@pytest.fixture(scope="module")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLaVA that writes whole words."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    words = ["<unk>", "<s>", "</s>", "<image>", "yes", "no", "a", "b", "video", "answer:", "jeep", "snow"]
    tokens = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokens.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    size = {"shortest_edge": SIDE}
    pictures = CLIPImageProcessor(size=size, crop_size={"height": SIDE, "width": SIDE})
    LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=3))
    for parameter in model.parameters():
        parameter.data *= 8  # or every word would follow every other
    model.save_pretrained(folder)
    return folder


def test_a_local_model_says_the_likeliest_words(tiny_llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held to the model's own logits, one word after the other, from inputs that are put together by hand."""
    monkeypatch.setattr("fatezero_eval.vlm.local_answerer.MOST_TOKENS", 6)
    frames = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)
    (question, _) = questions.YES_NO.of_edit(EDIT)
    reply = load_local(tiny_llava)(question, ShownFrames(frames), 0)

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_llava)
    per_picture = "<image>" * (SIDE // PATCH) ** 2
    picture = " ".join(["<image>"] * (SIDE // PATCH) ** 2)
    assert per_picture.count("<image>") == picture.count("<image>") == 4
    words = f"A video; 2 frames of it, in order of time: {picture} {picture} {question.text} answer:"
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(words.split())])
    pixels = CLIPImageProcessor.from_pretrained(tiny_llava)(images=[*frames], return_tensors="pt")["pixel_values"]
    model = LlavaForConditionalGeneration.from_pretrained(tiny_llava).eval()
    said: list[int] = []
    with torch.inference_mode():
        while len(said) < 6 and said[-1:] != [2]:
            whole = torch.cat([ids, torch.tensor([said], dtype=torch.long)], dim=1)
            said.append(int(model(input_ids=whole, pixel_values=pixels).logits[0, -1].argmax()))
    assert reply.text == tokenizer.decode(said, skip_special_tokens=True)
    assert (reply.prompt_tokens, reply.answer_tokens) == (ids.shape[1], len(said))


def test_a_warm_local_model_draws_by_the_repeats_number(tiny_llava: Path) -> None:
    frames = np.zeros((1, 16, 16, 3), np.uint8)
    (question, _) = questions.YES_NO.of_edit(EDIT)
    warm = load_local(tiny_llava, temperature=2.0)
    before = torch.random.get_rng_state()
    said = [warm(question, ShownFrames(frames), repeat).text for repeat in (0, 1, 0)]
    assert said[0] == said[2] != said[1]
    assert torch.equal(before, torch.random.get_rng_state())
    assert warm.id.startswith("tiny-llava:")
    assert warm.id.endswith(", temperature 2.0")


def test_folders_that_are_no_such_model_are_refused(tiny_llava: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither an address .* nor a folder"):
        load_local(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(UserError, match="no tokenizer"):
        load_local(tmp_path)
    config: dict[str, Any] = json.loads((tiny_llava / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    with pytest.raises(UserError, match="lacks weights of a vision-language model"):
        load_local(changed(tiny_llava, tmp_path / "half", "config.json", json.dumps(config)))
    for name in ("model.safetensors", "config.json"):
        with pytest.raises(UserError, match="no vision-language model of transformers"):
            load_local(changed(tiny_llava, tmp_path / f"damaged-{name}", name, "no such file"))


def changed(model: Path, folder: Path, name: str, text: str) -> Path:
    """A copy of a model's folder in which one file is another."""
    shutil.copytree(model, folder)
    (folder / name).write_text(text)
    return folder


def test_code_in_a_folder_is_neither_run_nor_offered(
    tiny_llava: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers asks by default whether the code may run."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    mapped = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForImageTextToText": "mine.M"}}
    folder = changed(tiny_llava, tmp_path / "mine", "config.json", json.dumps(mapped))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="custom code"):
        load_local(folder)
    assert not (tmp_path / "ran").exists()
    assert "y/N" not in "".join(capfd.readouterr())


def test_another_chat_template_is_another_model(tiny_llava: Path, tmp_path: Path) -> None:
    other = changed(tiny_llava, tmp_path / tiny_llava.name, "chat_template.jinja", f"{TEMPLATE} please")
    assert load_local(other).id != load_local(tiny_llava).id
