"""What a manifest says of the right results, checked before anything is edited or scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fatezero.clips.video import probe
from fatezero.data.remote import open_input
from fatezero.picturebook.benchmark.truth import check_recipe
from fatezero.types import EditRequest
from fatezero_eval.scoring.companions import companions_of, flow_between


def check_truth(request: EditRequest, stated: Mapping[str, Any]) -> None:
    """Refuse a truth that could not be used later; nothing is written.

    Args:
        request: the edit.
        stated: its truth, as `read_manifest` gives it.

    Raises:
        UserError: a recipe that names nothing of Picturebook's world; or a file that is missing, unreadable, or does
            not fit the clip.
    """
    if "recipe" in stated:
        check_recipe(stated)
        return
    for companion in companions_of(request, stated).values():
        probe(companion)
    if "flow" in stated:
        flow_between(open_input(stated["flow"]), request.clip)
