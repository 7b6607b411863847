"""A recipe names the stages and their parameters; it is a TOML file and nothing in it is ever evaluated."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast, get_args

from cygnoreco.calib.response import expand_response
from cygnoreco.cluster.directional import directional
from cygnoreco.cluster.idbscan import idbscan
from cygnoreco.cluster.lattice import dbscan
from cygnoreco.errors import InputError, nearest
from cygnoreco.image.correct import accept, correct_saturation, spark_veto, subtract, suppress, upper_cut
from cygnoreco.image.filters import median, noise_filter, rebin
from cygnoreco.image.orient import orient
from cygnoreco.image.points import points
from cygnoreco.kernels.image import Precision
from cygnoreco.measure.density import density_calibration
from cygnoreco.measure.redpix import redpix
from cygnoreco.measure.variables import measure
from cygnoreco.stage import Stage, stage_of
from cygnoreco.tables import event_table

#: The clustering stages among which a recipe chooses.
CLUSTERINGS = ("dbscan", "idbscan", "directional")

#: Every stage by name, in the order of the chain.
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in map(
        stage_of,
        (
            orient,
            spark_veto,
            upper_cut,
            subtract,
            correct_saturation,
            suppress,
            accept,
            expand_response,
            median,
            rebin,
            noise_filter,
            points,
            dbscan,
            idbscan,
            directional,
            measure,
            density_calibration,
            redpix,
            event_table,
        ),
    )
}

#: In what the image section may compute.
PRECISIONS: tuple[str, ...] = get_args(Precision)

_HEAD = ("name", "description", "extends", "clustering", "vignetting", "precision")


@dataclass(frozen=True)
class Recipe:
    """The named stages of a reconstruction with every one of their parameters.

    Attributes
    ----------
    name : str
        Short name; no part of the lineage key.
    description : str
        One line for people; no part of the lineage key.
    clustering : str
        ``dbscan``, ``idbscan`` or ``directional``.
    vignetting : str
        Map of the lens response used when the caller names none: ``generated:lime``, ``none`` or a file's path.
    precision : {'float64', 'float32'}
        What the image section computes in: ``float64``, which is the definition of the stages to the last bit, or
        ``float32``, faster and equal up to roundings (see :mod:`cygnoreco.kernels.image`).
    parameters : mapping of str to mapping
        Complete tables of parameters by stage; treat it as immutable.
    """

    name: str
    description: str
    clustering: str
    vignetting: str
    precision: Precision
    parameters: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, stage: str) -> Mapping[str, Any]:
        """Parameters of one stage, ready to be passed on: ``suppress(sub, rms, **recipe["suppress"])``."""
        return self.parameters[stage]

    @classmethod
    def load(cls, which: str | Path | Recipe) -> Recipe:
        """Load a recipe by its name or from a TOML file.

        Parameters
        ----------
        which : str, Path or Recipe
            Name of a shipped recipe (see :func:`shipped`), path of a ``.toml`` file, or a recipe (returned as it is).

        Raises
        ------
        InputError
            No such recipe or file, no valid TOML, unknown key, wrong type; names the nearest valid choice.
        """
        if isinstance(which, Recipe):
            return which
        name = str(which)
        if name in shipped():
            text, where = _shipped_text(name), f"recipe '{name}'"
        elif name.endswith(".toml"):
            path = Path(which)
            if not path.is_file():
                raise InputError(f"no recipe file '{path}'")
            where = f"'{path}'"
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{where} is not UTF-8 text: {error}") from None
        else:
            raise InputError(f"unknown recipe '{name}'" + nearest(name, shipped()))
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{where} is not valid TOML: {error}") from None
        document.setdefault("name", Path(name).stem)
        try:
            return cls.from_dict(document)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Recipe:
        """Build a recipe from nested dictionaries, as they stand in TOML.

        Parameters
        ----------
        document : mapping
            ``name``, ``description``, ``extends`` (a shipped recipe, default ``lime``), ``clustering``, ``vignetting``,
            ``precision``, and one table a stage with the parameters that differ from the extended recipe.

        Raises
        ------
        InputError
            Unknown key, wrong type or value; names the nearest valid one.
        """
        for key, value in document.items():
            if key in STAGES:
                if not isinstance(value, Mapping):
                    raise InputError(f"'{key}' must be a table of parameters, not {value!r}")
            elif key not in _HEAD:
                raise InputError(f"unknown key '{key}'" + nearest(key, (*_HEAD, *STAGES)))
            elif not isinstance(value, str):
                raise InputError(f"'{key}' must be a text, not {value!r}")
        parent = str(document.get("extends", "lime"))
        if parent not in shipped():
            raise InputError(f"unknown recipe '{parent}' in 'extends'" + nearest(parent, shipped()))
        is_root = document.get("name") == "lime" and "extends" not in document
        base = _ROOT if is_root else cls.load(parent)
        clustering = str(document.get("clustering", base.clustering))
        if clustering not in CLUSTERINGS:
            raise InputError(f"unknown clustering '{clustering}'" + nearest(clustering, CLUSTERINGS))
        precision = str(document.get("precision", base.precision))
        if precision not in PRECISIONS:
            raise InputError(f"unknown precision '{precision}'" + nearest(precision, PRECISIONS))
        return cls(
            name=str(document.get("name", "unnamed")),
            description=str(document.get("description", base.description)),
            clustering=clustering,
            vignetting=str(document.get("vignetting", base.vignetting)),
            precision=cast("Precision", precision),
            parameters={
                name: stage.validate({**base.parameters.get(name, {}), **document.get(name, {})})
                for name, stage in STAGES.items()
            },
        )

    def override(self, settings: Iterable[str]) -> Recipe:
        """Return a copy with single parameters changed, as by ``--set stage.key=value``.

        Parameters
        ----------
        settings : iterable of str
            ``stage.parameter=value``, or ``clustering``, ``vignetting`` or ``precision`` for the stage and parameter;
            values in TOML's notation, bare words are texts.

        Raises
        ------
        InputError
            A setting without ``=``, an unknown stage or parameter, or a wrong value.
        """
        changed: dict[str, Any] = {}
        for setting in settings:
            where, separator, text = setting.partition("=")
            stage, dot, key = where.strip().partition(".")
            if not separator or (not dot and stage not in ("clustering", "vignetting", "precision")):
                raise InputError(f"'{setting}' is not of the form stage.parameter=value")
            if dot and stage not in STAGES:
                raise InputError(f"unknown stage '{stage}' in '{setting}'" + nearest(stage, STAGES))
            if dot:
                changed.setdefault(stage, {})[key] = _value(text.strip())
            else:
                changed[stage] = text.strip()
        merged = {stage: {**self.parameters[stage], **changed.pop(stage, {})} for stage in STAGES}
        checked = Recipe.from_dict({**changed, **merged})
        return replace(
            self,
            clustering=checked.clustering if "clustering" in changed else self.clustering,
            vignetting=str(changed.get("vignetting", self.vignetting)),
            precision=changed.get("precision", self.precision),
            parameters=checked.parameters,
        )

    def active(self) -> tuple[Stage, ...]:
        """Stages that take part: all but the clusterings that were not chosen."""
        return tuple(stage for name, stage in STAGES.items() if name not in CLUSTERINGS or name == self.clustering)

    def canonical(self) -> dict[str, Any]:
        """Everything that decides the results, and nothing else: versions and parameters of the active stages."""
        return {
            "clustering": self.clustering,
            "precision": self.precision,
            "stages": {
                stage.name: {"version": stage.version, **self.parameters[stage.name]} for stage in self.active()
            },
        }

    def to_toml(self, *, comments: bool = False) -> str:
        """Write the complete recipe as TOML; with ``comments`` every parameter is preceded by its description."""
        head = (key for key in _HEAD if key != "extends")
        lines = [f"{key} = {_toml(getattr(self, key))}" for key in head]
        for name, stage in STAGES.items():
            if not stage.parameters:
                continue
            lines += ["", f"# {stage.summary}" if comments else "", f"[{name}]"][not comments :]
            for key, parameter in stage.parameters.items():
                if comments:
                    lines.append(f"# {parameter.description}")
                    choices = get_args(parameter.annotation)
                    if choices and all(isinstance(choice, str) for choice in choices):
                        lines.append(f"# one of: {', '.join(choices)}")
                lines.append(f"{key} = {_toml(self.parameters[name][key])}")
        return "\n".join(lines) + "\n"

    def differences(self, other: Recipe) -> list[tuple[str, Any, Any]]:
        """List what differs between two recipes: (``stage.parameter``, value here, value there)."""
        found: list[tuple[str, Any, Any]] = [
            (key, getattr(self, key), getattr(other, key))
            for key in ("clustering", "vignetting", "precision")
            if getattr(self, key) != getattr(other, key)
        ]
        for stage, table in self.parameters.items():
            found += [
                (f"{stage}.{key}", value, other.parameters[stage][key])
                for key, value in table.items()
                if value != other.parameters[stage][key]
            ]
        return found


#: What ``lime`` starts from: the defaults in the signatures of the stages.
_ROOT = Recipe("", "", "directional", "generated:lime", "float64", {})


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("cygnoreco") / "recipes"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml")))


def _shipped_text(name: str) -> str:
    return (resources.files("cygnoreco") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _toml(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
