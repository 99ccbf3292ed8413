"""Parts of paths that are made of what people call machines, sections, data sets and systems.

Such a name may hold anything. ``file_name`` is the one way from there into a path.
"""

import hashlib
import re

_MOST_BYTES = 100  # most file systems allow 255, and a name shares them with what is put before and behind it
_DIGITS = 12  # of the digest at the end of what was too long
_RESERVED = frozenset('/\\<>:"|?*')  # of paths, of object versions, of shares that a NAS serves
_READS_AS_CODE = re.compile(rf"%(?=[0-9A-Fa-f]{{2}})|~(?=[0-9a-f]{{{_DIGITS}}}$)")
_AT_AN_END = re.compile(r"^[. ]|[. ]$")  # a dot that hides, a dot or space that gets lost


def file_name(text: str) -> str:
    """One part of a path, of at most 100 bytes, that no other text gets: ``text`` itself, where that can be one.

    What separates parts, cannot be seen, hides the file or gets lost is percent-encoded, so that ``unquote`` gives the
    text back; of what is too long the end gives way to a digest.
    """
    seen = _READS_AS_CODE.sub(lambda found: _code(found[0]), text)
    seen = "".join(sign if sign.isprintable() and sign not in _RESERVED else _code(sign) for sign in seen)
    seen = _AT_AN_END.sub(lambda found: _code(found[0]), seen)
    if len(seen.encode()) <= _MOST_BYTES:
        return seen or "_"
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
    start = seen.encode()[: _MOST_BYTES - _DIGITS - 1].decode(errors="ignore")
    return f"{re.sub('%.?$', '', start)}~{digest}"


def is_file_name(text: str) -> bool:
    """Whether ``text`` is one part of a path, and leads to no other folder."""
    return "/" not in text and "\0" not in text and text not in ("", ".", "..")


def _code(sign: str) -> str:
    """The percent-encoding of its bytes."""
    return "".join(f"%{byte:02X}" for byte in sign.encode(errors="surrogatepass"))
