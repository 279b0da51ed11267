"""Tables in LaTeX, for the packages booktabs and longtable."""

from collections.abc import Iterable, Sequence

ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "\n": " ",
}
# More rows than this do not fit a page, so the table breaks across pages.
LONGEST = 36


def escape(text: str) -> str:
    """Text for LaTeX, all characters as they are."""
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def number(value: float, form: str) -> str:
    """A formatted number, its minus sign in mathematics."""
    return f"{value:{form}}".replace("-", "$-$").replace("+", "$+$")


def stacked(words: str) -> str:
    """A heading with one word a line, so that its column is not wider than its numbers."""
    lines = escape(words).replace(" \\%", "~\\%").replace(" ", "\\\\")
    return f"\\shortstack[r]{{{lines}}}"


def table(
    headings: Sequence[str], groups: Iterable[Sequence[Sequence[str]]], *, words: int, caption: str, label: str
) -> str:
    """A table with horizontal rules only, on one page (table) or on several (longtable).

    Args:
        headings: LaTeX. groups: sets of lines of cells, LaTeX; the lines of a set stay together, a little space
        follows. words: how many of the first columns hold words, on the left; numbers are on the right.
        caption: LaTeX. label: to refer to it.
    """
    groups = [list(group) for group in groups]
    columns = "l" * words + "r" * (len(headings) - words)
    # The star forbids a page break between the lines of a set.
    body = "\\addlinespace[2pt]\n".join(
        "".join(f"{' & '.join(line)} \\\\{'' if last else '*'}\n" for line, last in _marked(group)) for group in groups
    )
    head = f"\\toprule\n{' & '.join(headings)} \\\\\n\\midrule\n"
    caption_line = f"\\caption{{{caption}}}\\label{{{label}}}"
    style = "\\setlength{\\abovecaptionskip}{0pt}\n\\setlength{\\belowcaptionskip}{6pt}\n"
    style += "\\footnotesize\n\\setlength{\\tabcolsep}{3pt}\n"
    if sum(map(len, groups)) <= LONGEST:
        plain = body.replace("\\\\*", "\\\\")
        inner = f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}\n{head}{plain}\\bottomrule\n\\end{{tabular}}\n"
        return f"\\begin{{table}}\n\\centering\n{style}{caption_line}\n{inner}\\end{{table}}\n"
    repeated = f"{caption_line} \\\\\n{head}\\endfirsthead\n{head}\\endhead\n\\bottomrule\n\\endfoot\n"
    return f"{{{style}\\begin{{longtable}}{{@{{}}{columns}@{{}}}}\n{repeated}{body}\\end{{longtable}}}}\n"


def _marked(group: Sequence[Sequence[str]]) -> Iterable[tuple[Sequence[str], bool]]:
    return ((line, place == len(group) - 1) for place, line in enumerate(group))
