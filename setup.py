"""What pyproject.toml cannot state: where the repository is, which whoever publishes the package says.

REPOSITORY_URL names it, as the workflow of releases does. The package's page shows the README beside none of the files
that its links and pictures lead to; with the address they lead to the repository's files of this version.
"""

import os
import re
from pathlib import Path

from setuptools import setup

REPOSITORY = os.environ.get("REPOSITORY_URL", "").rstrip("/")
LINK = re.compile(r"(?P<picture>!?)(?P<text>\[[^\]]*\]\()(?P<path>[^):#]+)(?=[#)])")
URLS = {"Paper": "https://arxiv.org/abs/2303.09535"}


def _absolute(link: re.Match[str]) -> str:
    kind = "raw" if link["picture"] else "blob"
    return f"{link['picture']}{link['text']}{REPOSITORY}/{kind}/v{VERSION}/{link['path']}"


def _text(file: str) -> str:
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


VERSION = re.findall(r'^__version__ = "(.+)"$', _text("fatezero/__init__.py"), re.MULTILINE)[0]
README = _text("README.md")
if REPOSITORY:
    URLS |= {"Repository": REPOSITORY, "Changelog": f"{REPOSITORY}/blob/v{VERSION}/CHANGELOG.md"}
    URLS |= {"Documentation": f"{REPOSITORY}/blob/v{VERSION}/docs/index.md", "Issues": f"{REPOSITORY}/issues"}
    README = LINK.sub(_absolute, README)

setup(long_description=README, long_description_content_type="text/markdown", project_urls=URLS)
