"""What a stage says of itself, and how its parameters are checked."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from cygnoreco.errors import DataError, InputError, nearest
from cygnoreco.stage import stage, stage_of


@stage(name="toy", version=3)
def toy(
    data: int,
    *,
    radius: Annotated[float, Ge(0)] = 12,
    mode: Literal["keep", "zero"] = "keep",
    cuts: tuple[int, int] = (900, 150),
    edge: int | None = None,
) -> int:
    """Do nothing in one line.

    More words.

    Parameters
    ----------
    data : int
        Not a parameter of the recipe.
    radius : float
        How far,
        in pixels.
    mode : {'keep', 'zero'}
        What to do.
    cuts, edge : int
        Two at once.

    Returns
    -------
    int
        The data.
    """
    return data


def test_a_stage_remains_a_function() -> None:
    assert toy(5, radius=1.0) == 5


def test_description_comes_from_signature_and_docstring() -> None:
    found = stage_of(toy)
    assert (found.name, found.version, found.summary) == ("toy", 3, "Do nothing in one line.")
    assert list(found.parameters) == ["radius", "mode", "cuts", "edge"]
    assert found.parameters["radius"].description == "How far, in pixels."
    assert found.parameters["cuts"].description == found.parameters["edge"].description == "Two at once."


def test_defaults_are_completed_and_normalised() -> None:
    values = stage_of(toy).validate({})
    assert values == {"radius": 12.0, "mode": "keep", "cuts": (900, 150), "edge": None}
    assert isinstance(values["radius"], float)  # 12 and 12.0 must give one lineage key


def test_toml_spellings_are_understood() -> None:
    values = stage_of(toy).validate({"cuts": [1, 2], "edge": "none"})
    assert values["cuts"] == (1, 2)
    assert values["edge"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radiu": 1.0}, r"unknown parameter 'toy.radiu'; did you mean 'radius'\?"),
        ({"zzz": 1.0}, r"unknown parameter 'toy.zzz'; valid: cuts, edge, mode, radius"),
        ({"radius": "12"}, r"'toy.radius' = '12'"),
        ({"radius": -1.0}, r"'toy.radius' = -1.0: .*greater than or equal to 0"),
        ({"mode": "keeep"}, r"'toy.mode' = 'keeep': .*'keep' or 'zero'"),
        ({"cuts": [1]}, r"'toy.cuts'"),
        ({"edge": True}, r"'toy.edge' = True"),
    ],
)
def test_wrong_parameters_name_the_nearest_right_one(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stage_of(toy).validate(values)


def test_a_parameter_needs_default_and_description() -> None:
    def bare(data: int, *, radius: float) -> None:
        """Say nothing of radius."""

    with pytest.raises(TypeError, match="'radius' needs a default and a description"):
        stage(name="bare", version=1)(bare)


def test_a_data_error_says_where() -> None:
    error = DataError("cut short", event=7, offset=1024)
    assert str(error) == "cut short (event 7, byte 1024)"
    assert (error.event, error.offset) == (7, 1024)
    assert str(DataError("cut short")) == "cut short"


def test_nearest_lists_all_when_nothing_is_close() -> None:
    assert nearest("qqq", ["b", "a"]) == "; valid: a, b"
