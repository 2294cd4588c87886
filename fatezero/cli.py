"""The doorway: a table of verbs. What a verb needs is imported when it is used."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from tempfile import NamedTemporaryFile

from fatezero import __version__
from fatezero.commands.completion import continuations
from fatezero.commands.help_pages import verb_page, verbs_page
from fatezero.commands.mistakes import UsageError, unknown
from fatezero.commands.option_words import gathered
from fatezero.commands.parsing import call, parse, parser_of
from fatezero.commands.verbs import Verb, chosen, parameters_of
from fatezero.config import MethodConfig, ModelOptions
from fatezero.errors import UnforeseenError, UserError, as_failure
from fatezero.system.stopping import Stopped, stopping_on_signals
from fatezero.system.terminal import any_locale, complain, say

COMMANDS, MODELS = "fatezero.commands", "fatezero.picturebook.models"
HELP = ("--help", "-h")
ABOUT = (
    "FateZero edits videos by text, without training. `fatezero edit` alone edits a shipped clip with the shipped "
    "model, in seconds."
)
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Edit": ("edit", "invert", "tune", "convert"),
    "Score and compare": ("ablate", "evaluate", "leaderboard", "report", "sheet", "degrade", "trust"),
    "Ask people": ("study", "votes"),
    "Look after what is there": ("status", "cache", "datasets", "doctor", "bench"),
    "Make the shipped models": ("train",),
}
OF_AN_EDIT: Mapping[str, tuple[str, ...]] = {
    "What to edit": ("clip", "source", "target", "edited_words", "target_words", "manifest"),
    "How": ("model", "steps", "guidance_scale", "fusion.self_window", "fusion.cross_window", "blending.threshold"),
    "Where to": ("out", "variant", "redo", "dry_run", "verbose"),
}
OF_AN_ABLATION: Mapping[str, tuple[str, ...]] = {
    "What to compare": ("variants", "sweep", "reference"),
    "On what, by what": ("manifest", "categories", "edits", "frames", "model", "metrics", "judge"),
    "Where to": ("out", "redo", "dry_run", "verbose"),
}
VERBS: Mapping[str, Verb] = {
    "edit": Verb("edit a clip, or all clips of a manifest", f"{COMMANDS}.edit:edit", needs=OF_AN_EDIT),
    "invert": Verb("invert clips ahead of their edits", f"{COMMANDS}.invert:invert"),
    "tune": Verb("tune a checkpoint on one clip, for shape edits", f"{COMMANDS}.tune:tune"),
    "convert": Verb("make what loads of pickles, or of a published Tune-A-Video", f"{COMMANDS}.convert:convert"),
    "ablate": Verb("compare variants of the method", f"{COMMANDS}.ablate:ablate", needs=OF_AN_ABLATION),
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
            sentence = _sentence(error)
            complain(_with_log(sentence))
            return 2 if isinstance(sentence, UsageError) else 1


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        say(__version__)
        return 0
    if words[:1] == ["--complete"]:
        say("\n".join(_asked_by_shell(words)))
        return 0
    rest = [word for word in words if word not in HELP]  # which may stand before a verb as well as behind it
    names = _named(rest)
    verb = chosen(VERBS, names)
    command = " ".join(["fatezero", *names])
    if verb is None or verb.verbs:
        _check_named(rest, names)
        say(_overview(names))
        return 0
    if rest != words:
        say(verb_page(verb, command, recommended_by_shipped(verb)))
        return 0
    words = gathered(verb, words, command)
    method = _recommended(verb, words, names, command) if edits(verb) else MethodConfig()
    parser = parser_of(verb, names, method, prog="fatezero")
    made = call(verb, parser.instantiate(parse(parser, words, verb, command)))
    if isinstance(made, int):
        return made
    say(made)  # a training's files
    return 0


def _asked_by_shell(words: Sequence[str]) -> list[str]:
    """What bash's `complete -C` asks: behind the option stand the program's name and the last word as it is begun."""
    line, begun = os.environ.get("COMP_LINE", "").split()[1:], "".join(words[2:3])
    return continuations(VERBS, line[: len(line) - bool(begun)], begun)


def _named(words: Sequence[str]) -> list[str]:
    """The first words, as far as they name verbs."""
    names, verbs = list[str](), VERBS
    for word in words:
        if word not in verbs:
            break
        names.append(word)
        verbs = verbs[word].verbs
    return names


def _check_named(words: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a word where a verb belongs."""
    if len(words) > len(names):
        command = " ".join(["fatezero", *names])
        known = VERBS[names[0]].verbs if names else VERBS
        raise unknown(f"{command} has no", words[len(names)], known, f"{command} --help")


def _overview(names: Sequence[str]) -> str:
    """The page of all verbs, or of those that may follow a word."""
    if not names:
        return verbs_page(VERBS, "fatezero", ABOUT, SECTIONS)
    verb = VERBS[names[0]]
    return verbs_page(verb.verbs, f"fatezero {names[0]}", f"{verb.help}.", {"Verbs": tuple(verb.verbs)})


def edits(verb: Verb) -> bool:
    """Whether a verb takes a method, whose defaults are the checkpoint's recommendations."""
    return any(part.annotation is MethodConfig for part in parameters_of(verb))


def recommended_by_shipped(verb: Verb) -> MethodConfig:
    """What help shows as defaults: the shipped model's, where the verb edits."""
    return _method_for(ModelOptions()) if edits(verb) else MethodConfig()


def _recommended(verb: Verb, words: list[str], names: Sequence[str], command: str) -> MethodConfig:
    """The checkpoint's own recommendations: the defaults of what the user leaves open."""
    asked = [word for word in words if not word.startswith("--print_config")]
    options = parse(parser_of(verb, names, MethodConfig()), asked, verb, command)[names[0]]
    return _method_for(ModelOptions(**{field.name: options[field.name] for field in fields(ModelOptions)}))


def _method_for(networks: ModelOptions) -> MethodConfig:
    from fatezero.diffusion.checkpoint import example_of, find_checkpoint  # noqa: PLC0415
    from fatezero.diffusion.recommendations import recommended_method  # noqa: PLC0415

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
