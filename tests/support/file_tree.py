"""The tree of docs/architecture.md: every module with its first docstring line. `python tests/support/file_tree.py` renews it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
HEADING = "## The files\n"


def tree():
    """The text below the heading."""
    lines = ["", "```text"]
    _add(ROOT / "erv", "", lines)
    return "\n".join([*lines, "```", ""])


def _add(folder, indent, lines):
    lines.append(_line(f"{indent}{folder.name}/", folder / "__init__.py"))
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            lines.append(_line(f"{indent}  {file.name}", file))
    for inner in sorted(folder.iterdir()):
        if (inner / "__init__.py").is_file():
            _add(inner, f"{indent}  ", lines)


def _line(name, file):
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return f"{name:<34}{doc.splitlines()[0] if doc else ''}".rstrip()


if __name__ == "__main__":
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(text[: text.index(HEADING) + len(HEADING)] + tree(), encoding="utf-8")
