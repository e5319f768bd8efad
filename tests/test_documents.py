"""docs/architecture.md shows the files as they are."""

from file_tree import DOCUMENT, HEADING, tree


def test_the_tree_is_that_of_the_package():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text[text.index(HEADING) + len(HEADING) :] == tree(), "run python tests/support/file_tree.py"
