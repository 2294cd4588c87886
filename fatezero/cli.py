"""The doorway: a table of verbs. What a verb needs is imported when it is used."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from tempfile import NamedTemporaryFile

from fatezero import __version__
from fatezero.commands.parsing import Verb, call, chosen, gathered, parameters_of, parse, parser_of
from fatezero.config import MethodConfig, ModelOptions
from fatezero.errors import UnforeseenError, UserError, as_failure
from fatezero.system.stopping import Stopped, stopping_on_signals
from fatezero.system.terminal import any_locale, complain, say

COMMANDS, MODELS = "fatezero.commands", "fatezero.picturebook.models"
VERBS: Mapping[str, Verb] = {
    "edit": Verb("edit a clip, or all clips of a manifest", f"{COMMANDS}.edit:edit"),
    "invert": Verb("invert clips ahead of their edits", f"{COMMANDS}.invert:invert"),
    "tune": Verb("tune a checkpoint on one clip, for shape edits", f"{COMMANDS}.tune:tune"),
    "convert": Verb("make what loads of pickles, or of a published Tune-A-Video", f"{COMMANDS}.convert:convert"),
    "ablate": Verb("compare variants of the method", f"{COMMANDS}.ablate:ablate"),
    "evaluate": Verb("score a run, or anyone's videos", f"{COMMANDS}.evaluate:evaluate"),
    "leaderboard": Verb("join scored runs into tables", f"{COMMANDS}.leaderboard:leaderboard"),
    "degrade": Verb("true edits, spoilt by known amounts, to test metrics on", f"{COMMANDS}.degrade:degrade"),
    "trust": Verb("which metrics follow the distance to the true edit", f"{COMMANDS}.trust:trust"),
    "report": Verb("a page of a run's videos, tables and plots", f"{COMMANDS}.report:report"),
    "sheet": Verb("a picture of a run's first edits", f"{COMMANDS}.sheet:sheet"),
    "study": Verb("a page on which people compare methods, blinded", f"{COMMANDS}.study:study"),
    "votes": Verb("what the answers to a study say", f"{COMMANDS}.votes:votes"),
    "status": Verb("what a run folder holds and lacks", f"{COMMANDS}.status:status"),
    "cache": Verb("list, verify or prune kept inversions", f"{COMMANDS}.cache:cache"),
    "datasets": Verb(
        "check a manifest and its clips, or clips alone",
        verbs={"check": Verb("what is there and what is missing", f"{COMMANDS}.datasets:check")},
    ),
    "train": Verb(
        "train or measure the shipped models",
        verbs={
            "autoencoder": Verb("train Picturebook's autoencoder", f"{MODELS}.autoencoder:train_autoencoder"),
            "picture-latents": Verb(
                "make latents ahead of a training", f"{MODELS}.picture_latents:make_picture_latents"
            ),
            "text-to-image": Verb(
                "train Picturebook's text-to-image model", f"{MODELS}.text_to_image:train_text_to_image"
            ),
            "clip": Verb("train Picturebook's judge", f"{MODELS}.judge:train_judge"),
            "motion": Verb("train Picturebook's motion adapter", f"{MODELS}.motion_adapter:train_motion"),
            "video-autoencoder": Verb(
                "train Picturebook-Video's autoencoder", f"{MODELS}.video_autoencoder:train_video_autoencoder"
            ),
            "video-latents": Verb("make latents ahead of a training", f"{MODELS}.video_latents:make_video_latents"),
            "text-to-video": Verb(
                "train Picturebook's text-to-video model", f"{MODELS}.text_to_video:train_text_to_video"
            ),
            "report": Verb("measure the shipped models", "fatezero.picturebook.measure:measure_models"),
            "video-report": Verb("measure Picturebook-Video", "fatezero.picturebook.measure_video:measure_video_model"),
        },
    ),
    "bench": Verb("time and memory against the bare network", f"{COMMANDS}.bench:bench"),
    "doctor": Verb("what can run on this machine, or what a checkpoint is", f"{COMMANDS}.doctor:doctor"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    any_locale()
    with stopping_on_signals():
        try:
            return _run(list(sys.argv[1:] if args is None else args))
        except Stopped as stopped:
            with suppress(Stopped):  # where nobody reads the mistakes either
                complain(stopped)
            return 128 + stopped.signum
        except KeyboardInterrupt:
            complain(Stopped(signal.SIGINT))
            return 128 + signal.SIGINT
        except Exception as error:  # a mistake of the user's, or of this program's
            complain(_with_log(_sentence(error)))
            return 1


def _run(words: list[str]) -> int:
    verb = chosen(VERBS, words)
    words = gathered(verb, words) if verb else words
    edits = verb is not None and any(part.annotation is MethodConfig for part in parameters_of(verb))
    method = _recommended(verb, words) if verb and edits else MethodConfig()
    about = {"prog": "fatezero", "description": "Text-driven video editing without training.", "version": __version__}
    parser = parser_of(VERBS, words, method, **about)
    parsed = parse(parser, words)
    if verb is None:
        parser.print_help()
        return 0
    made = call(verb, parser.instantiate(parsed))
    if isinstance(made, int):
        return made
    say(made)  # a training's files
    return 0


def _recommended(verb: Verb, words: list[str]) -> MethodConfig:
    """The checkpoint's own recommendations: the defaults of what the user leaves open."""
    asked = [word for word in words if not word.startswith("--print_config")]
    if "--help" in asked or "-h" in asked:
        return MethodConfig()
    from fatezero.diffusion.checkpoint import example_of, find_checkpoint  # noqa: PLC0415
    from fatezero.diffusion.recommendations import recommended_method  # noqa: PLC0415

    options = parse(parser_of({asked[0]: verb}, asked, MethodConfig()), asked)[asked[0]]
    networks = ModelOptions(**{field.name: options[field.name] for field in fields(ModelOptions)})
    checkpoint = find_checkpoint(replace(networks, model=example_of(networks.model)))
    return recommended_method(checkpoint.folder, checkpoint.adapter)


def _sentence(error: Exception) -> UserError:
    """The sentence for the user, which jsonargparse wraps when a value refuses itself."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, UserError):
        seen = seen.__cause__ or seen.__context__
    return seen or as_failure(error)


def _with_log(mistake: UserError) -> str:
    """The sentence, with the file that its trace was written to, where nobody foresaw the error."""
    if not isinstance(mistake, UnforeseenError):
        return str(mistake)
    with NamedTemporaryFile("w", encoding="utf-8", prefix="fatezero-", suffix=".log", delete=False) as log:
        log.write(mistake.trace)
    return f"{mistake} Its trace is in {log.name}."
