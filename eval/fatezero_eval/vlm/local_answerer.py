"""A vision-language model of transformers from a folder on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from fatezero.errors import UserError
from fatezero_eval.networks.transformers_folders import check_tokenizer, load_whole
from fatezero_eval.vlm.answering import Reply
from fatezero_eval.vlm.questions import Question
from fatezero_eval.vlm.shown_frames import ShownFrames

MOST_TOKENS = 512  # of an answer
_READ = {".safetensors", ".json", ".jinja", ".model", ".txt"}  # suffixes of files that transformers reads


class LocalAnswerer:
    """A model for images and text, with its processor."""

    at_once = 1

    def __init__(self, model: Any, processor: Any, name: str, *, temperature: float | None = 0.0) -> None:
        """Take a loaded model.

        Args:
            model: transformers' `AutoModelForImageTextToText`.
            processor: what belongs to it; its chat template is used.
            name: names the model and its weights.
            temperature: 0 takes the likeliest word; None leaves it to the folder's generation_config.
        """
        warmth = {None: ", temperature of its own", 0.0: ""}.get(temperature, f", temperature {temperature}")
        self.id = f"{name}{warmth}"
        self._model = model.eval().requires_grad_(False)
        self._processor = processor
        chances = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        self._chances: dict[str, Any] = {} if temperature is None else chances

    def __call__(self, question: Question, pictures: ShownFrames, repeat: int) -> Reply:
        """See `Answerer`; what is drawn follows from the repeat's number."""
        begun = perf_counter()
        inputs = self._inputs(question, pictures)
        read = inputs["input_ids"].shape[1]
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(repeat)
            output = self._model.generate(**inputs, max_new_tokens=MOST_TOKENS, **self._chances)
        said = output[0, read:]
        text = self._processor.batch_decode(said[None], skip_special_tokens=True)[0]
        return Reply(text=text, prompt_tokens=read, answer_tokens=len(said), seconds=perf_counter() - begun)

    def _inputs(self, question: Question, pictures: ShownFrames) -> Any:
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
            for part in (*pictures.parts, question.text)
        ]
        made = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return made.to(self._model.device, dtype=self._model.dtype)


def load_local(folder: Path, device: str = "cpu", temperature: float | None = 0.0) -> LocalAnswerer:
    """A vision-language model from a folder in transformers' layout; no code of the folder is run.

    Raises:
        UserError: there is no such folder, or no such model with safetensors weights and a tokenizer in it.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415

    if not (folder / "config.json").is_file():
        raise UserError(
            f"--vlm {folder} is neither an address (http://host:8000/v1) nor a folder with a vision-language model of "
            "transformers (config.json)."
        )
    check_tokenizer(folder)
    model, processor = load_whole(
        folder, "vision-language model of transformers", AutoModelForImageTextToText, AutoProcessor, dtype="auto"
    )
    if not getattr(processor, "chat_template", None):
        raise UserError(f"--vlm {folder} has no chat template (chat_template.jinja): get an instruction-tuned model.")
    return LocalAnswerer(model.to(device), processor, _identity(folder), temperature=temperature)


def _identity(folder: Path) -> str:
    """Folder name and first digits of a digest of all that answers depend on: weights, words and chat template."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _READ):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}:{total.hexdigest()[:8]}"
