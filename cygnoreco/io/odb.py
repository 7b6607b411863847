"""The DAQ's settings (ODB) at the begin and end of a run: read them, blot out their secrets, write them.

A dump is JSON or, in older files, XML. Real dumps are not clean: they hold Latin-1 bytes among UTF-8 and raw control
characters, so decoding is lenient about characters and strict about structure.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from cygnoreco.errors import DataError

REDACTED = "<redacted>"

_SECRET_NAME = re.compile(
    r"pass(word|wd|phrase)|passwd|\bpwd\b|secret|token|credential|api.?key|access.?key|private.?key", re.I
)
#: Secrets inside values: credentials in an address, ``password=...`` in a connection string, ``mysql ... -p...``.
_SECRET_VALUES = (
    (re.compile(r"(\w://[^/\s:@]*:)[^/\s@]+(?=@)"), rf"\1{REDACTED}"),
    (re.compile(r"\b(password|passwd|pwd|secret|token)(\s*[=:]\s*)[^\s;,&]+", re.I), rf"\1\2{REDACTED}"),
    (re.compile(r"\b((?:mysql|mariadb)\w*\s(?:.*\s)?-p)\S+"), rf"\1{REDACTED}"),
)

# Type numbers of MIDAS (midas.h) and their names in XML dumps.
_UNSIGNED, _FLOATS, _INT32, _BOOL, _FLOAT, _STRING = (4, 6, 18), (9, 10), 7, 8, 10, 12
_INT64 = 17
_XML_INTEGERS = frozenset(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)) | {
    "BYTE",
    "SBYTE",
    "WORD",
    "SHORT",
    "DWORD",
    "INT",
    "QWORD",
    "BITFIELD",
}


def _latin1(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("latin-1"), error.end


codecs.register_error("cygnoreco.latin1", _latin1)


def parse_odb(dump: bytes | memoryview) -> dict[str, Any]:
    """Read a dump of the ODB, JSON or XML.

    Parameters
    ----------
    dump : bytes-like
        Payload of a begin or end of run.

    Returns
    -------
    dict
        Nested dictionaries by key; values are ``bool``, ``int``, ``float``, ``str`` or lists of these. Secrets are
        still in it: pass it through :func:`redact` before it is shown or stored.

    Raises
    ------
    DataError
        It is neither JSON nor XML, or is cut.
    """
    # Bytes that are not UTF-8 are Latin-1 in practice (the degree sign of a temperature).
    text = bytes(dump).rstrip(b"\0").decode("utf-8", "cygnoreco.latin1").lstrip("\ufeff \t\r\n")
    if not text:
        return {}
    try:
        return _parse_xml(text) if text.startswith("<") else _parse_json(text)
    except RecursionError:
        raise DataError("the ODB dump is nested too deeply") from None


def lookup(odb: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Value of an ODB path such as ``/Runinfo/Run number``; `default` if there is none."""
    node: Any = odb
    for key in filter(None, path.split("/")):
        if not isinstance(node, Mapping) or key not in node:
            return default
        node = node[key]
    return node


def redact(node: Any, secret: bool = False) -> Any:
    """Copy settings with every secret blotted out, found by the name of its key or by its form.

    Parameters
    ----------
    node : mapping, list or value
        What :func:`parse_odb` returns, or a part of it.
    secret : bool
        The key above has the name of a secret: nothing but truth values is kept.
    """
    if isinstance(node, Mapping):
        return {key: redact(value, secret or bool(_SECRET_NAME.search(key))) for key, value in node.items()}
    if isinstance(node, list):
        return [redact(value, secret) for value in node]
    if secret and node not in ("", None) and not isinstance(node, bool):
        return REDACTED
    if isinstance(node, str):
        for pattern, replacement in _SECRET_VALUES:
            node = pattern.sub(replacement, node)
    return node


def dump_odb(settings: Mapping[str, Any]) -> bytes:
    """Write settings as the JSON dump that the DAQ makes; :func:`parse_odb` is its inverse.

    Parameters
    ----------
    settings : mapping
        Nested mappings of ``bool``, ``int``, ``float``, ``str`` or lists of one of these.

    Returns
    -------
    bytes
        UTF-8, without a trailing NUL.
    """
    return json.dumps(_with_types(settings), indent=2, ensure_ascii=False).encode()


def _parse_json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text, strict=False)
    except ValueError as error:
        raise DataError(f"the ODB dump is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise DataError("the ODB dump is not a JSON object")
    return _without_types(document)


def _without_types(node: Mapping[str, Any]) -> dict[str, Any]:
    """Apply the types in the siblings ``X/key`` to the values ``X`` and drop them."""
    settings: dict[str, Any] = {}
    for key, value in node.items():
        if key.endswith("/key"):
            continue
        sibling = node.get(f"{key}/key")
        if isinstance(value, dict):
            settings[key] = _without_types(value)
        elif isinstance(value, list):
            settings[key] = [_typed(entry, sibling) for entry in value]
        else:
            settings[key] = _typed(value, sibling)
    return settings


def _typed(value: Any, sibling: Any) -> Any:
    """Give a value that JSON had to write as a string its type back: "0x1F", "NaN", "-Infinity"."""
    type_number = sibling.get("type") if isinstance(sibling, dict) else None
    if not isinstance(value, str):
        return float(value) if type_number in _FLOATS and isinstance(value, int) else value
    try:
        if type_number in _UNSIGNED:
            return int(value, 0)
        if type_number in _FLOATS:
            return float(value)
    except ValueError:
        pass  # the string itself is all there is
    return value


def _with_types(node: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            document[key] = _with_types(value)
            continue
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        type_number = _type_number(values)
        sibling = {"type": type_number}
        if isinstance(value, (list, tuple)):
            sibling["num_values"] = len(values)
        document[f"{key}/key"] = sibling
        written = [_json_value(entry, type_number) for entry in values]
        document[key] = written if isinstance(value, (list, tuple)) else written[0]
    return document


def _type_number(values: list[Any]) -> int:
    if all(isinstance(value, bool) for value in values):
        return _BOOL
    if all(isinstance(value, int) for value in values):
        return _INT32 if all(-(2**31) <= value < 2**31 for value in values) else _INT64
    if all(isinstance(value, (int, float)) for value in values):
        return _FLOAT
    if all(isinstance(value, str) for value in values):
        return _STRING
    raise TypeError(f"an ODB value is a bool, int, float, str or a list of one of them, not {values!r}")


def _json_value(value: Any, type_number: int) -> Any:
    if type_number == _FLOAT:
        value = float(value)
        if math.isnan(value):
            return "NaN"
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _parse_xml(text: str) -> dict[str, Any]:
    if "<!ENTITY" in text:
        raise DataError("the ODB dump declares XML entities, which no DAQ writes")
    # Expat takes no control characters and knows the encoding already.
    text = re.sub(r"^<\?xml[^>]*\?>", "", re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "", text))
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"the ODB dump is not valid XML: {error}") from None
    return _xml_directory(root)


def _xml_directory(node: ElementTree.Element) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for child in node:
        name, type_name = child.get("name", ""), child.get("type", "STRING")
        if child.tag == "dir":
            settings[name] = _xml_directory(child)
        elif child.tag == "key":
            settings[name] = _xml_value(child.text or "", type_name)
        elif child.tag == "keyarray":
            settings[name] = [_xml_value(value.text or "", type_name) for value in child.iter("value")]
    return settings


def _xml_value(text: str, type_name: str) -> Any:
    try:
        if type_name == "BOOL":
            return text.strip().lower() in ("y", "1", "true")
        if type_name in _XML_INTEGERS:
            return int(text, 0)
        if type_name in ("FLOAT", "DOUBLE"):
            return float(text)
    except ValueError:
        pass  # the text itself is all there is
    return text
