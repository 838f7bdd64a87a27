"""What the documentation site needs beyond MkDocs (mkdocs.yml): links that leave docs/, and our form of docstrings.

A page of docs/ links to code, tests and models too, as it is read in the repository as well. On the site such a link
leads to the repository where mkdocs.yml has a `repo_url`, and is plain text where it has none.
"""

import ast
import os
import re
import textwrap
from collections.abc import Container
from pathlib import Path
from typing import Any

import griffe

FENCED = re.compile(r"^(?:```.*?^```|~~~.*?^~~~)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?!\w+:|#)([^)\s#]+)(?:#[^)\s]*)?\)")
ALIGNED = re.compile(r"^(\w[\w ,*]*?) {2,}(\S.*)$")
NAMED = re.compile(r"^(\w+): (\S.*)$")


def outside_fences(text: str, change: Any) -> str:
    """The text with `change` applied to all of it but fenced code."""
    done, place = [], 0
    for fence in FENCED.finditer(text):
        done += [change(text[place : fence.start()]), fence[0]]
        place = fence.end()
    return "".join([*done, change(text[place:])])


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """MkDocs: a page's Markdown before it is rendered."""
    docs = Path(config.docs_dir)
    root, here = docs.parent, (docs / page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        text, target = link.groups()
        path = Path(os.path.normpath(here / target))
        if path.is_relative_to(docs):
            return link[0]
        if not path.exists():
            raise ValueError(f"{page.file.src_uri} links to {target}, which is not there")
        inside = path.relative_to(root).as_posix()
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{inside})" if config.repo_url else text

    return outside_fences(markdown, lambda part: LINK.sub(led, part))


def listed(text: str, names: Container[str] = ()) -> str:
    """A docstring whose aligned blocks are lists of definitions, and whose code and trees are code.

    An entry is a name, two or more spaces and its text; or one of `names`, a colon and its text.
    """
    return "\n\n".join(_block(block, names) for block in text.split("\n\n"))


def _block(block: str, names: Container[str]) -> str:
    if "├──" in block:
        return f"```text\n{block}\n```"
    return f"```python\n{textwrap.dedent(block)}\n```" if _is_code(block) else _definitions(block, names)


def _is_code(block: str) -> bool:
    """Whether a paragraph is Python that does something: a call, an import, an assignment."""
    try:
        tree = ast.parse(textwrap.dedent(block))
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Call | ast.Assign | ast.ImportFrom) for node in ast.walk(tree))


def _definitions(block: str, names: Container[str]) -> str:
    out: list[str] = []
    column = 0  # at which the current entry's text begins, 0 outside of one
    for line in block.split("\n"):
        entry = ALIGNED.match(line) or NAMED.match(line)
        if entry and entry.re is NAMED and entry[1] not in names:
            entry = None
        indent = len(line) - len(line.lstrip())
        if entry:
            out += ["", ", ".join(f"`{name}`" for name in entry[1].split(", ")), f":   {entry[2]}"]
            column = entry.start(2) if entry.re is ALIGNED else 4
        elif column and indent >= column:
            out.append(f"    {line.strip()}")
        else:
            out += ["", line] if column else [line]
            column = 0
    return "\n".join(out).lstrip("\n")


class AlignedBlocks(griffe.Extension):
    """Reads the aligned blocks of our docstrings as lists of definitions."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring and not obj.is_alias:
            parameters = obj.parameters if obj.is_function else ()
            names = {*obj.members, *(one.name for one in parameters)}
            obj.docstring.value = listed(obj.docstring.value, names)
