"""Check the relative links and anchors of Markdown files: python tools/check_links.py README.md docs ...

No network: links with a scheme are passed over. Prints each broken link as `file:line: target: why` and
exits with 1 where there is one. Anchors follow GitHub's rule for headings; `<a id>` and `<a name>` count too.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
CODE = re.compile(r"(`+)(?:(?!\1).)*?\1")
INLINE = re.compile(
    r"\[(?:[^\[\]]|\[[^\[\]]*\](?:\([^()]*\))?)*\]\(\s*<?([^()<>\s]*(?:\([^()\s]*\)[^()<>\s]*)*)>?[^()]*\)"
)
NESTED_IMAGE = re.compile(r"!\[[^\[\]]*\]\(\s*<?([^()<>\s]+)")
DEFINITION = re.compile(r"^ {0,3}\[([^\]]+)\]:\s*<?([^\s>]+)")
REFERENCE = re.compile(r"\[([^\[\]]+)\]\[([^\[\]]*)\]")
HTML = re.compile(r"""<(?:a|img)\s[^>]*?(?:href|src)\s*=\s*["']([^"']+)["']""", re.IGNORECASE)
HTML_ANCHOR = re.compile(r"""<[a-z0-9]+\s[^>]*?(?:id|name)\s*=\s*["']([^"']+)["']""", re.IGNORECASE)
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)(?:\s+#+)?\s*$")
UNDERLINE = re.compile(r"^ {0,3}(?:=+|-+)\s*$")
SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)


@dataclass(frozen=True)
class Broken:
    file: Path
    line: int
    target: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.target}: {self.why}"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines outside fenced code."""
    fence = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif mark:
            fence = mark[1]
        else:
            yield number, line


def slug(heading: str) -> str:
    """GitHub's anchor: markup off, small letters, punctuation off, spaces to dashes."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    text = re.sub(r"<[^>]+>", "", text)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


@cache
def anchors(path: Path) -> frozenset[str]:
    found, seen, previous = set(), Counter[str](), ""
    for _, line in text_lines(path):
        heading = HEADING.match(line)
        title = heading[1] if heading else previous if previous.strip() and UNDERLINE.match(line) else None
        if title is not None:
            name = slug(title)
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
        found.update(HTML_ANCHOR.findall(line))
        previous = line
    return frozenset(found)


def links(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, target, problem) of every link; problem is set where a reference has no definition."""
    lines = [(number, CODE.sub("", line)) for number, line in text_lines(path)]
    defined = {m[1].lower() for _, line in lines if (m := DEFINITION.match(line))}
    for number, line in lines:
        for pattern in (INLINE, NESTED_IMAGE, HTML):
            yield from ((number, target, "") for target in pattern.findall(line))
        if definition := DEFINITION.match(line):
            yield number, definition[2], ""
        for text, label in REFERENCE.findall(line):
            if (label or text).lower() not in defined:
                yield number, f"[{text}][{label}]", "no such reference"


def check(path: Path) -> list[Broken]:
    broken = []
    for line, target, problem in dict.fromkeys(links(path)):
        why = problem or problem_of(path, target)
        if why:
            broken.append(Broken(path, line, target, why))
    return broken


def problem_of(path: Path, target: str) -> str:
    if SCHEME.match(target):
        return ""
    if target.startswith("/"):
        return "not relative"
    name, _, anchor = unquote(target).partition("#")
    goal = path.parent / name.partition("?")[0] if name else path
    if not goal.exists():
        return "no such file"
    if anchor and goal.suffix.lower() == ".md" and anchor not in anchors(goal.resolve()):
        return "no such anchor"
    return ""


def markdown_files(paths: Sequence[Path]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.rglob("*.md")) if path.is_dir() else [path])]


def main(arguments: Sequence[str]) -> int:
    missing = [name for name in arguments if not Path(name).exists()]
    if missing or not arguments:
        print(f"no such file or folder: {', '.join(missing)}" if missing else __doc__, file=sys.stderr)
        return 1
    files = markdown_files([Path(name) for name in arguments])
    broken = [problem for file in files for problem in check(file)]
    for problem in broken:
        print(problem, file=sys.stderr)
    print(f"{len(files)} files, {len(broken)} broken links", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
