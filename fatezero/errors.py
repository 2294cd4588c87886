"""The one exception a user is meant to read, and what becomes of all others."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeVar

Made = TypeVar("Made")
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "Unable to allocate", "bad_alloc")


class UserError(Exception):
    """Something the user can mend: one sentence saying what is wrong, where, and how to mend it.

    The command line prints the message without a stack trace and exits with status 1.
    """


class UnforeseenError(UserError):
    """An error that nobody wrote a sentence for.

    Attributes:
        trace: where it happened, for a log file. As text: the error itself would keep all that its frames hold.
    """

    def __init__(self, sentence: str, trace: str = "") -> None:
        super().__init__(sentence)
        self.trace = trace


def attempt(make: Callable[[], Made]) -> Made | UserError:
    """What is made, or why there is nothing: one item's failure stops no other."""
    try:
        return make()
    except Exception as error:  # whatever it is
        return as_failure(error)


def unwrap(outcome: Made | UserError) -> Made:
    """What was made.

    Raises:
        UserError: there is nothing.
    """
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def as_failure(error: Exception) -> UserError:
    """Any error as a sentence for people."""
    if isinstance(error, UserError):
        return error
    if out_of_memory(error):
        traceback.clear_frames(error.__traceback__)  # what they hold is what is lacking
        return UserError(
            "The memory does not suffice: take fewer frames or a smaller size, chunks (norm_scope 'frame'), or keep "
            "less of the source's attention there (store 'host' or 'disk', backend 'recompute')."
        )
    trace = "".join(traceback.format_exception(error))
    return UnforeseenError(f"Stopped by an error that was not foreseen ({first_line(error)}).", trace)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, of the machine or of a device."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Kind and first line of an error, cut to 200 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
