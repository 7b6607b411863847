"""A stage is a pure function of arrays; its keyword-only parameters are its configuration schema."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from cygnoreco.errors import InputError, nearest

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Parameter:
    """One parameter of a stage.

    Attributes
    ----------
    name : str
        Key in the stage's table of a recipe.
    annotation : Any
        Type, possibly ``Annotated`` with bounds (``annotated_types.Ge`` ...).
    default : Any
        Value of the ``lime`` recipe.
    description : str
        Its text in the stage's docstring.
    """

    name: str
    annotation: Any
    default: Any
    description: str


@dataclass(frozen=True)
class Stage:
    """What a recipe needs to know about a stage function."""

    name: str
    version: int
    summary: str
    parameters: Mapping[str, Parameter]
    function: Callable[..., Any]

    def validate(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Complete and check a table of parameters.

        Parameters
        ----------
        values : mapping
            Parameters that differ from the defaults.

        Returns
        -------
        dict
            Every parameter of the stage, in the order of its signature.

        Raises
        ------
        InputError
            Unknown key or wrong type or value; names the nearest valid key.
        """
        for key in values:
            if key not in self.parameters:
                raise InputError(f"unknown parameter '{self.name}.{key}'" + nearest(key, self.parameters))
        return {
            name: _check(f"{self.name}.{name}", parameter.annotation, values.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }


def stage(*, name: str, version: int) -> Callable[[F], F]:
    """Declare a pure function to be a stage of the chain.

    The function is returned as it is, with its description attached as ``__stage__``: it stays an ordinary
    function that anybody can call.

    Parameters
    ----------
    name : str
        Name of its table in a recipe.
    version : int
        Raised whenever the results change: it is part of the lineage key.
    """

    def declare(function: F) -> F:
        function.__stage__ = Stage(  # type: ignore[attr-defined]
            name=name,
            version=version,
            summary=(inspect.getdoc(function) or "").partition("\n")[0],
            parameters=_parameters(function),
            function=function,
        )
        return function

    return declare


def stage_of(function: Any) -> Stage:
    """Return the description attached by :func:`stage`."""
    return typing.cast("Stage", function.__stage__)


def _parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    texts = _parameter_texts(inspect.getdoc(function) or "")
    found = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if parameter.default is inspect.Parameter.empty or parameter.name not in texts:
            raise TypeError(f"{function.__qualname__}: '{parameter.name}' needs a default and a description")
        found[parameter.name] = Parameter(
            parameter.name, hints[parameter.name], parameter.default, texts[parameter.name]
        )
    return found


def _parameter_texts(docstring: str) -> dict[str, str]:
    """Texts of the ``Parameters`` section of a numpydoc docstring, by name."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", docstring, re.S | re.M)
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in section.group(1).splitlines() if section else ():
        if line and not line[0].isspace():
            names = [name.strip() for name in line.partition(" : ")[0].split(",")]
            texts.update(dict.fromkeys(names, ""))
        elif line.strip():
            for name in names:
                texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def _check(where: str, annotation: Any, value: Any) -> Any:
    """Check a value against a type; an integer may stand for a float, nothing else is converted."""
    from pydantic import ValidationError

    if isinstance(value, list):  # TOML has arrays where signatures have tuples
        value = tuple(value)
    if value == "none" and type(None) in typing.get_args(annotation):  # and no word for None
        value = None
    if any(
        isinstance(each, float) and not math.isfinite(each) for each in (value if isinstance(value, tuple) else [value])
    ):
        raise InputError(f"'{where}' = {value!r}: a finite number is needed")
    try:
        return _adapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"'{where}' = {value!r}: {first['msg']}") from None


@cache
def _adapter(annotation: Any) -> Any:
    from pydantic import TypeAdapter  # imported late: a third of a second that `--help` must not wait for

    return TypeAdapter(annotation)
