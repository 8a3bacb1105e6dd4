"""Bytes of a guest as the state document spells them."""

import re


def text(data):
    """Bytes that are not UTF-8 appear as \\xNN."""
    return data.decode("utf-8", "backslashreplace")


def octal_text(data):
    """What /proc escapes in octal (blanks, newlines), unescaped."""
    return text(re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8) & 255]), data))
