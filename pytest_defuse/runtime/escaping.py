"""Text from files, names and paths, made safe to show. Every output of the package passes through :func:`visible`."""

import re
import unicodedata

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that steer a terminal, reorder text, end a line or cannot be encoded: control and format
characters, surrogates, separators of lines and paragraphs."""
JOINERS = "\u200c\u200d"
"""Format characters that Persian, Indic scripts and many emoji need."""
_COMMAND = re.compile(r"(?<!\S)(?=::)|(?<=##)(?=\[)")
"""The place where a backslash breaks a workflow command of GitHub: before ``::error`` at the start of a line, which is
any word once a line is wrapped, and within ``##[error]``, which counts anywhere in a line."""


def visible(text: str, *, lines: bool = False) -> str:
    r"""Text in which characters that are not visible are escapes such as ``\x1b``, and no word is a workflow command.

    Visible text stays as it is, in any script; to apply this twice changes nothing.

    Args:
        lines: whether newlines and tabs stay.
    """
    if not text.isprintable():
        kept = f"{JOINERS}\n\t" if lines else JOINERS
        text = "".join(
            _escape(character) if unicodedata.category(character) in HIDDEN and character not in kept else character
            for character in text
        )
    return _COMMAND.sub(r"\\", text)


def encodable(text: str, encoding: str | None) -> str:
    r"""Text that a terminal of this encoding can show; other characters are escapes such as ``\u2192``."""
    encoding = encoding or "ascii"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
