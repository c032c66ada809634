"""The Markdown files: every link leads somewhere, and the README stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = (ROOT / "emu", ROOT / "tests", ROOT / "buildroot")
DOCUMENTS = [*ROOT.glob("*.md"), *(path for room in ROOMS for path in room.rglob("*.md"))]
LINKS = [(document, link) for document in sorted(DOCUMENTS)
         for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()) if "://" not in link]  # fmt: skip


def anchors(document: Path) -> set[str]:
    """What GitHub calls its headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("document", "link"), LINKS, ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_a_link_leads_somewhere(document: Path, link: str) -> None:
    name, _, anchor = link.partition("#")
    target = (document.parent / name).resolve() if name else document
    assert target.is_relative_to(ROOT)
    assert target.exists()
    assert not anchor or anchor in anchors(target)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
