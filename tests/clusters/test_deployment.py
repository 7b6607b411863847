"""The checks of ``.ci/deployment.py``: each refuses what it is there for, and says which object is meant."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LABELS = {"app": "execute"}
SITE = 'kind = "htcondor"\n[job]\ncores = 1\nmemory = "2 GB"\ndisk = "1 GB"\n'


@pytest.fixture(scope="module")
def deployment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deployment", ROOT / ".ci" / "deployment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def objects() -> list[dict[str, Any]]:
    """Objects with which nothing is wrong."""
    container = {
        "name": "condor",
        "image": "registry.example/cygnoreco:0.1.0",
        "ports": [{"name": "condor", "containerPort": 9618}],
        "resources": {
            "requests": {"cpu": "500m", "memory": "1Gi"},
            "limits": {"cpu": "1", "memory": "3Gi", "ephemeral-storage": "2G"},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/condor/config.d"}, {"name": "key", "mountPath": "/key"}],
    }
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": "condor-execute"}},
            {"name": "key", "secret": {"secretName": "signing-key"}},
        ],
    }
    return [
        {
            "kind": "Deployment",
            "metadata": {"name": "execute"},
            "spec": {
                "selector": {"matchLabels": LABELS},
                "template": {"metadata": {"labels": {**LABELS, "part": "pool"}}, "spec": pod},
            },
        },
        {
            "kind": "Service",
            "metadata": {"name": "execute"},
            "spec": {"selector": LABELS, "ports": [{"port": 9618, "targetPort": "condor"}]},
        },
        {
            "kind": "NetworkPolicy",
            "metadata": {"name": "dask"},
            "spec": {
                "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["execute"]}]},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"part": "pool"}}}]}],
            },
        },
        {
            "kind": "ConfigMap",
            "metadata": {"name": "condor-execute"},
            "data": {"condor.conf": "RESERVED_MEMORY = 512\n", "site.toml": SITE},
        },
    ]


def all_faults(deployment: ModuleType, objects: list[dict[str, Any]]) -> list[str]:
    page = "kubectl create secret generic signing-key --from-file=POOL"
    return [
        *deployment.container_faults(objects),
        *deployment.reference_faults(objects, page),
        *deployment.selector_faults(objects),
        *deployment.site_faults(objects),
    ]


def test_nothing_is_wrong_with_sound_objects(deployment: ModuleType, objects: list[dict[str, Any]]) -> None:
    assert all_faults(deployment, objects) == []


CONTAINER = ("spec", "template", "spec", "containers", 0)
VOLUMES = ("spec", "template", "spec", "volumes")
SECURITY = (*CONTAINER, "securityContext")


@pytest.mark.parametrize(
    ("index", "path", "value", "said"),
    [
        (0, (*CONTAINER, "resources", "requests"), {"cpu": "1"}, "container condor: resources without requests.memory"),
        (0, (*CONTAINER, "image"), "localhost:5000/cygnoreco", "image 'localhost:5000/cygnoreco' has no tag"),
        (0, (*CONTAINER, "image"), "cygnoreco:latest", "image 'cygnoreco:latest' has no tag"),
        (0, (*SECURITY, "allowPrivilegeEscalation"), True, "container condor: needs allowPrivilegeEscalation false"),
        (0, ("spec", "template", "spec", "securityContext"), {}, "Deployment execute: its pods need runAsNonRoot"),
        (0, (*VOLUMES, 0, "configMap", "name"), "condor-exec", "there is no ConfigMap 'condor-exec'"),
        (0, (*VOLUMES, 1, "secret", "secretName"), "key", "no Secret 'key', nor does docs/deployment.md make it"),
        (0, (*VOLUMES, 1, "name"), "keys", "volume 'key' is not there"),
        (0, (*VOLUMES, 1, "name"), "keys", "volume 'keys' is not used"),
        (0, ("spec", "serviceName"), "submit", "there is no Service 'submit'"),
        (0, ("spec", "selector", "matchLabels"), {"app": "submit"}, "Deployment execute: its selector"),
        (1, ("spec", "selector"), {"app": "submit"}, "Service execute: its selector"),
        (1, ("spec", "ports", 0, "targetPort"), "http", "Service execute: no container opens port 'http'"),
        (2, ("spec", "podSelector", "matchExpressions", 0, "values"), ["a", "b"], "NetworkPolicy dask: its selector"),
        (
            2,
            ("spec", "ingress", 0, "from", 0, "podSelector"),
            {"matchLabels": {"part": "x"}},
            "NetworkPolicy dask: its",
        ),
        (3, ("kind",), "Secret", "Secret condor-execute: secrets do not belong in git"),
        (3, ("data", "site.toml"), SITE.replace("2 GB", "3 GB"), "site.toml: job.memory = 3000000000 is more than"),
        (3, ("data", "site.toml"), SITE + "gpus = 1\n", "site.toml: job.gpus = 1 is more than the 0"),
        (3, ("data", "site.toml"), SITE.replace("cores", "core"), "unknown 'job.core'"),
    ],
)
def test_a_fault_is_found_and_named(
    deployment: ModuleType, objects: list[dict[str, Any]], index: int, path: tuple[Any, ...], value: Any, said: str
) -> None:
    broken = copy.deepcopy(objects)
    place: Any = broken[index]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert any(said in fault for fault in all_faults(deployment, broken))


@pytest.mark.parametrize(("text", "number"), [("500m", 0.5), ("16Gi", 16 * 2**30), ("2G", 2e9), (4, 4), ("1.5", 1.5)])
def test_quantities(deployment: ModuleType, text: str | int, number: float) -> None:
    assert deployment.quantity(text) == number


def test_a_misspelt_name_of_the_configuration_is_found(deployment: ModuleType, tmp_path: Path) -> None:
    """HTCondor ignores it, so its programs are searched for the word; names of lists of users are made as it runs."""
    for folder in ("bin", "sbin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / "condor_config_val").touch()
    for name in ("collector", "master", "negotiator", "schedd", "shadow", "startd", "starter"):
        (tmp_path / "sbin" / f"condor_{name}").write_bytes(b"\0NUM_CPUS\0ADVERTISE_STARTD\0MaxVacateTime\0")
    text = "# NUM_CPU = 1\nNUM_CPU = 1\nNUM_CPUS = 1\nALLOW_ADVERTISE_STARTD = *\nmaxvacatetime = 3\nuse feature:GPUs\n"
    assert deployment.unknown_names(text, tmp_path / "bin") == ["NUM_CPU"]
