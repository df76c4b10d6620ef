"""What the site's builder, MkDocs, is told beyond ``mkdocs.yml``.

Pages link to files of the repository as GitHub shows them. Here the Markdown files outside ``docs/`` become pages,
links to them follow, links to anything else become plain text, and the reference is made from the public names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from inspect import getdoc, isclass, isfunction
from os.path import normpath
from pathlib import Path
from pkgutil import iter_modules
from posixpath import dirname, relpath
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
# Markdown files outside docs/ (a pattern) and the folder or page of the site where they go.
BROUGHT_IN = {
    "ARCHITECTURE.md": "explain/architecture.md",
    "src/internimage/ops/dcnv3/README.md": "explain/dcnv3.md",
    "src/internimage/ops/branch/README.md": "project/branch.md",
    "src/internimage/ops/attention/README.md": "project/attention.md",
    "src/internimage/model/shipped/*.md": "models/",
    "src/internimage/data/samples/README.md": "project/samples.md",
    "src/internimage/data/segmentation/palettes/README.md": "project/palettes.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "benchmarks/results/*.md": "benchmarks/results/",
    "examples/README.md": "project/examples.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
}
# Files that stand for a page which says the same.
STANDS_FOR = {"README.md": "index.md", "NOTICE": "project/notice.md"}
# A page of the reference, what it is about, and the modules whose public names it shows.
REFERENCE: dict[str, tuple[str, tuple[str, ...]]] = {
    "operator": ("The operator", ("internimage.ops.dcnv3",)),
    "model": ("Networks and weight files", ("internimage.model",)),
    "design": ("Designs and their costs", ("internimage.model.design.*",)),
    "structures": ("Values that travel", ("internimage.structures",)),
    "data": ("Data", ("internimage.data", "internimage.data.shards")),
    "inference": (
        "Inference",
        ("internimage.inference", "internimage.inference.detection", "internimage.inference.segmentation"),
    ),
    "inspection": (
        "Looking into networks",
        ("internimage.inference.inspection", "internimage.inference.receptive_field"),
    ),
    "bulk": ("Inference over millions", ("internimage.inference.bulk",)),
    "visualization": ("Visualization", ("internimage.visualization.*",)),
    "training": ("Parameter groups and schedules", ("internimage.training",)),
    "tasks": (
        "Training tasks",
        ("internimage.tasks", "internimage.tasks.detection", "internimage.tasks.segmentation"),
    ),
    "export": ("Export", ("internimage.export",)),
    "integrations": (
        "Integrations",
        ("internimage.integrations.timm", "internimage.integrations.transformers", "internimage.integrations.ray"),
    ),
}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"^(```|~~~).*?^\1\s*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def pages_from_outside() -> dict[str, str]:
    """Repository path -> page of the site, for every Markdown file that is brought in."""
    found: dict[str, str] = {}
    for pattern, place in BROUGHT_IN.items():
        for path in sorted(REPOSITORY.glob(pattern)):
            name = path.relative_to(REPOSITORY).as_posix()
            found[name] = place if place.endswith(".md") else place + path.name
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs/``, the notice and the reference; find what each ``FOLDER/*`` is."""
    for name, place in pages_from_outside().items():
        files.append(File.generated(config, place, abs_src_path=str(REPOSITORY / name)))
    notice = (REPOSITORY / "NOTICE").read_text(encoding="utf-8")
    files.append(File.generated(config, "project/notice.md", content=f"# Licences\n\n```text\n{notice}```\n"))
    for place, content in reference_pages().items():
        files.append(File.generated(config, place, content=content))
    pages = {file.src_uri: file for file in files.documentation_pages()}
    config.nav = _expand(config.nav or [], pages)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the site needs them."""
    source = page.file.abs_src_path
    if source is None:
        # Made here, with the site's own links.
        return markdown
    name = Path(source).relative_to(REPOSITORY).as_posix()
    return rewrite_links(markdown, name, page.file.src_uri, {file.src_uri for file in files})


def rewrite_links(markdown: str, source: str, place: str, known: Iterable[str]) -> str:
    """A page's text with every link to a file led to a page of the site, or, where there is none, made plain text.

    Args:
        markdown: the text; code in it is left as it is.
        source: the file it comes from, relative to the repository.
        place: where the page lies in the site's sources.
        known: what the site's sources hold.
    """
    places = pages_from_outside() | STANDS_FOR
    known = set(known)

    def led(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        text = _LINK.sub(led, text)
        file = normpath(f"{dirname(source)}/{target}").lstrip("/")
        goal = places.get(file, file.removeprefix("docs/") if file.startswith("docs/") else "")
        for candidate in (goal, f"{goal}/README.md"):
            if goal and candidate in known:
                return f"{picture}[{text}]({relpath(candidate, dirname(place) or '.')}{anchor or ''})"
        return text

    # Code may stand inside a link's text, so it is put aside, not cut out.
    codes: list[str] = []

    def aside(found: re.Match[str]) -> str:
        codes.append(found.group())
        return f"\0{len(codes) - 1}\0"

    text = _LINK.sub(led, _CODE.sub(aside, markdown))
    return re.sub("\0(\\d+)\0", lambda found: codes[int(found[1])], text)


def _expand(entries: Iterable[Any], pages: dict[str, File]) -> list[Any]:
    expanded: list[Any] = []
    for entry in entries:
        for title, value in entry.items() if isinstance(entry, dict) else [(None, entry)]:
            if isinstance(value, list):
                value = _expand(value, pages)
            elif value.endswith("/*"):
                value = list(_folder(value.removesuffix("*"), pages))
            expanded.append(value if title is None else {title: value})
    return expanded


def _folder(folder: str, pages: dict[str, File]) -> Iterator[str | dict[str, str]]:
    """The pages of a folder: its index, what that links to in this order, and the rest."""
    names = [name for name in pages if dirname(name) == folder.rstrip("/")]
    index = next((name for name in names if name.endswith(("/README.md", "/index.md"))), None)
    if index is not None:
        yield index
        names.remove(index)
    linked = [] if index is None else re.findall(r"\]\(([\w.-]+\.md)", pages[index].content_string)
    order = {f"{folder}{name}": position for position, name in reversed(list(enumerate(linked)))}
    for name in sorted(names, key=lambda name: (order.get(name, len(linked)), name)):
        # Many measurements have the same heading; their files' names tell them apart.
        stem = name.removeprefix(folder).removesuffix(".md")
        yield {stem.replace("_", " "): name} if folder == "benchmarks/results/" else name


def reference_pages() -> dict[str, str]:
    """Site path -> Markdown of every page of the reference; each value is shown once, where it comes first."""
    homes: dict[int, str] = {}
    pages: dict[str, str] = {}
    for name, (title, patterns) in REFERENCE.items():
        parts = [f"# {title}"]
        for module in (module for pattern in patterns for module in _modules(pattern)):
            imported = import_module(module)
            parts += [f"## `{module}`", _first_paragraph(imported)]
            for public in public_names(module):
                path, value = f"{module}.{public}", getattr(imported, public)
                # Of constants two may be equal, and be one object by chance.
                is_named = isclass(value) or isfunction(value)
                if not is_named or homes.setdefault(id(value), path) == path:
                    parts.append(f"::: {path}\n    options:\n      heading_level: 3")
        pages[f"reference/{name}.md"] = "\n\n".join(parts)
    return {"reference/index.md": _reference_index(homes), **pages}


def _reference_index(homes: Mapping[int, str]) -> str:
    import internimage

    rows = ["| name | what |", "| --- | --- |"]
    for public in internimage.__all__:
        value = getattr(internimage, public)
        if id(value) not in homes:
            raise ValueError(f"internimage.{public} is on no page of the reference; add its module to REFERENCE")
        rows.append(f"| [`internimage.{public}`][{homes[id(value)]}] | {_first_paragraph(value)} |")
    rooms = [
        f"- [{title}]({name}.md): {', '.join(f'`{module}`' for module in modules)}"
        for name, (title, modules) in REFERENCE.items()
    ]
    says = "`import internimage` brings these names, each when it is first used:"
    return "\n\n".join(["# Reference", says, "\n".join(rows), "And by room:", "\n".join(rooms)])


def public_names(module: str) -> list[str]:
    """What a module says is public, or else its classes and functions without an underscore."""
    imported = import_module(module)
    if (names := getattr(imported, "__all__", None)) is not None:
        return list(names)
    return [
        name
        for name, value in vars(imported).items()
        if (isclass(value) or isfunction(value)) and value.__module__ == module and not name.startswith("_")
    ]


def _modules(pattern: str) -> list[str]:
    if not pattern.endswith(".*"):
        return [pattern]
    package = import_module(pattern.removesuffix(".*"))
    return [f"{package.__name__}.{found.name}" for found in iter_modules(package.__path__)]


def _first_paragraph(value: object) -> str:
    return " ".join((getdoc(value) or "").split("\n\n")[0].split())


class DoctestsAsCode(griffe.Extension):
    """Examples in docstrings are shown as code: in Markdown, ``>>>`` alone would begin a quotation."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Put every block of ``>>>`` lines and their output into a fence."""
        if obj.docstring is not None:
            obj.docstring.value = fence_doctests(obj.docstring.value)


def fence_doctests(text: str) -> str:
    """A docstring's text with its doctests as fenced code.

    >>> print(fence_doctests("One.\\n\\n>>> 1 + 1\\n2\\n"))
    One.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    <BLANKLINE>
    """
    return re.sub(r"^(>>> .*(?:\n(?!\n).+)*)", r"```pycon\n\1\n```", text, flags=re.MULTILINE)
