"""The manifests for Kubernetes: against the schemas, and as processes here."""

import copy
import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click import Context
from dask.utils import parse_bytes

import dicomdask
from dicomdask import storage
from dicomdask.cli import main
from tests.builders import make_series, to_bytes
from tests.conftest import SECRET

FOLDER = Path(__file__).parent.parent / "deploy" / "kubernetes"
CRDS = "operator/deployment/helm/dask-kubernetes-operator/crds"
KUBERNETES = "1.32"
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PAGE = (FOLDER / "README.md").read_text()
SENT = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DICOMDASK_KEY"}

Manifest = dict[str, Any]


@cache
def manifests() -> dict[str, Manifest]:
    """Return the manifests by their kind."""
    found = [
        document
        for path in sorted(FOLDER.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    return {document["kind"]: document for document in found}


@cache
def pod_specs() -> dict[str, Manifest]:
    """Return what each kind of pod is made of."""
    cluster = manifests()["DaskCluster"]["spec"]
    return {
        "scheduler": cluster["scheduler"]["spec"],
        "worker": cluster["worker"]["spec"],
        "convert": manifests()["Job"]["spec"]["template"]["spec"],
    }


def container(role: str) -> Manifest:
    [found] = pod_specs()[role]["containers"]
    assert found["name"] == role
    return dict(found)


def options(role: str) -> dict[str, str]:
    """Return the options of a container's arguments."""
    words = container(role)["args"]
    return {
        word: words[number + 1]
        for number, word in enumerate(words)
        if word.startswith("--")
    }


# --- against the schemas ------------------------------------------------------


def strict(schema: Any) -> Any:
    """Return a schema in which a field that it does not name is an error."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {name: strict(one) for name, one in schema.items()}
    is_open = found.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not is_open:
        found.setdefault("additionalProperties", False)
    return found


@cache
def dask_schemas() -> dict[tuple[str, str], Any]:
    """Return the schemas of the operator's kinds, as its package brings them."""
    spec = importlib.util.find_spec("dask_kubernetes")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    schemas = {}
    for path in (Path(spec.submodule_search_locations[0]) / CRDS).glob("*.yaml"):
        for crd in yaml.load_all(path.read_text(), FAST):
            kind, group = crd["spec"]["names"]["kind"], crd["spec"]["group"]
            for version in crd["spec"]["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"] |= {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "metadata": {"type": "object"},
                }
                schemas[f"{group}/{version['name']}", kind] = schema
    assert ("kubernetes.dask.org/v1", "DaskCluster") in schemas
    return schemas


def problems(manifest: Manifest) -> list[str]:
    """Return what is wrong with a manifest by the schema of its kind."""
    schema = dask_schemas().get((manifest["apiVersion"], manifest["kind"]))
    if schema is None:
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [error.message]
        return []
    validator = jsonschema.Draft7Validator(schema)
    return [error.message for error in validator.iter_errors(manifest)]


@pytest.mark.parametrize("kind", ["DaskCluster", "Job", "NetworkPolicy"])
def test_a_manifest_is_as_its_schema_says(kind: str) -> None:
    assert problems(manifests()[kind]) == []


@pytest.mark.parametrize("role", ["scheduler", "worker", "convert"])
def test_a_pod_is_as_the_core_schema_says(role: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": role},
        "spec": pod_specs()[role],
    }
    assert problems(pod) == []


def _rename(*path: Any, to: str) -> Callable[[Manifest], None]:
    def plant(manifest: Manifest) -> None:
        node: Any = manifest
        for step in path[:-1]:
            node = node[step]
        node[to] = node.pop(path[-1])

    return plant


WORKER = ("spec", "worker", "spec", "containers", 0)
CONVERT = ("spec", "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("kind", "plant", "word"),
    [
        ("DaskCluster", _rename("spec", "worker", "replicas", to="replica"), "replica"),
        (
            "DaskCluster",
            _rename(*WORKER, "env", 6, "valueFrom", "secretKeyRef", to="secretRef"),
            "secretRef",
        ),
        ("DaskCluster", _rename(*WORKER, "resources", to="resource"), "resource"),
        ("DaskCluster", _rename("spec", "scheduler", "service", to="svc"), "svc"),
        (
            "Job",
            _rename(
                *CONVERT,
                "securityContext",
                "readOnlyRootFilesystem",
                to="readonlyRootFilesystem",
            ),
            "readonlyRootFilesystem",
        ),
        ("Job", _rename("spec", "backoffLimit", to="backofLimit"), "backofLimit"),
        ("NetworkPolicy", _rename("spec", "ingress", to="ingres"), "ingres"),
    ],
)
def test_a_typo_is_caught(
    kind: str, plant: Callable[[Manifest], None], word: str
) -> None:
    manifest = copy.deepcopy(manifests()[kind])
    plant(manifest)
    assert any(f"'{word}'" in problem for problem in problems(manifest))


# --- what a schema does not say -----------------------------------------------


@pytest.mark.parametrize("role", ["scheduler", "worker", "convert"])
def test_a_pod_has_no_rights_and_no_secret_in_its_text(role: str) -> None:
    spec, one = pod_specs()[role], container(role)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] >= 10000
    assert spec["automountServiceAccountToken"] is False
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = {v["name"]: v for v in spec["volumes"]}
    assert set(volumes) == {"scratch", "tls"}
    assert "emptyDir" in volumes["scratch"]
    assert volumes["tls"]["secret"]["defaultMode"] == 0o440
    for variable in one["env"]:
        is_plain = "value" in variable
        is_secret = variable["name"] == "DICOMDASK_KEY" or "AWS_" in variable["name"]
        assert is_plain != is_secret
    names = {variable["name"] for variable in one["env"]}
    assert names >= SENT if role != "scheduler" else not names & SENT
    assert one["image"].endswith(f"/dicomdask:{dicomdask.__version__}")


@pytest.mark.parametrize("role", ["scheduler", "worker", "convert"])
def test_memory_that_is_asked_for_is_memory_that_may_be_used(role: str) -> None:
    resources = container(role)["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_the_limit_of_a_worker_agrees_with_its_container() -> None:
    words, resources = options("worker"), container("worker")["resources"]
    workers = int(words["--nworkers"])
    needed = workers * parse_bytes(words["--memory-limit"])
    limit = parse_bytes(resources["limits"]["memory"] + "B")
    assert needed + 256 * 2**20 <= limit <= 1.25 * needed
    assert workers * int(words["--nthreads"]) <= int(resources["requests"]["cpu"])


def test_all_talk_is_encrypted_and_meets_at_one_address() -> None:
    address = "tls://dicomdask-scheduler:8786"
    assert options("convert")["--scheduler"] == address
    variables = {v["name"]: v.get("value") for v in container("worker")["env"]}
    assert variables["DASK_SCHEDULER_ADDRESS"] == address
    assert manifests()["DaskCluster"]["metadata"]["name"] == "dicomdask"
    for path in FOLDER.glob("*.yaml"):
        said = re.sub(r"#.*", "", path.read_text())
        assert "tcp://" not in said
    for role in pod_specs():
        variables = {v["name"]: v.get("value") for v in container(role)["env"]}
        assert variables["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"


def test_the_job_runs_a_command_that_exists() -> None:
    job = container("convert")
    verb, *words = job["args"]
    context: Context = main.commands[verb].make_context(verb, list(words))
    assert context.params["store"].startswith("s3://")
    assert context.params["work"].startswith("s3://")
    assert " ".join(["dicomdask", *job["args"]]) in PAGE


@pytest.mark.parametrize(("code", "ending"), [(0, 0), (8, 0), (1, 1), (2, 2)])
def test_rejected_inputs_do_not_fail_the_job(
    code: int, ending: int, tmp_path: Path
) -> None:
    program = tmp_path / "dicomdask"
    program.write_text(
        f'#!/bin/sh\ntest "$*" = "convert a b" || exit 99\nexit {code}\n'
    )
    program.chmod(0o755)
    command = [*container("convert")["command"], "convert", "a", "b"]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(command, env={"PATH": path}, check=False)
    assert done.returncode == ending


def test_the_page_makes_the_secrets_that_the_manifests_name() -> None:
    wanted: dict[str, set[str]] = {}
    for role, spec in pod_specs().items():
        for volume in spec["volumes"]:
            if "secret" in volume:
                wanted.setdefault(volume["secret"]["secretName"], set())
        for variable in container(role)["env"]:
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                wanted.setdefault(reference["name"], set()).add(reference["key"])
    made = re.findall(r"kubectl create secret (?:tls|generic) (\S+)(.*)", PAGE)
    assert set(wanted) == {name for name, _ in made}
    for name, how in made:
        literal = set(re.findall(r"--from-file=(\w+)=", how))
        listed = set(re.findall(r"^ +(AWS_\w+)=", PAGE, re.MULTILINE))
        found = listed if "--from-env-file" in how else literal
        assert wanted[name] == found


# --- as processes of this machine ---------------------------------------------


class Pods:
    """Runs the containers of the manifests as processes, without a kubelet.

    Parameters
    ----------
    folder
        Holds the certificate, as the secret would, and what is scratch in a pod.
    """

    def __init__(self, folder: Path, exits: ExitStack) -> None:
        self.folder, self.exits = folder, exits
        self.port, dashboard = free_port(), free_port()
        self.replaced = {
            "/etc/dicomdask/tls": str(folder),
            "/scratch": str(folder),
            "dicomdask-scheduler:8786": f"127.0.0.1:{self.port}",
            "0.0.0.0": "127.0.0.1",
            ":8787": f"127.0.0.1:{dashboard}",
            "8786": str(self.port),
            "$(DASK_WORKER_NAME)": "dicomdask-default-worker-1",
        }

    def local(self, text: str) -> str:
        for old, new in self.replaced.items():
            if old in text:
                return text.replace(old, new)
        return text

    def start(
        self, role: str, secret: Mapping[str, str], *, args: Mapping[str, str] = {}
    ) -> "subprocess.Popen[str]":
        """Start a container; `args` says what replaces some of its arguments."""
        one = container(role)
        env = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(FOLDER.parent.parent),
            "HOME": str(self.folder),
        }
        for variable in one["env"]:
            name = variable["name"]
            if "value" in variable:
                env[name] = self.local(variable["value"])
            elif name in secret:
                env[name] = secret[name]
        words = [self.local(args.get(word, word)) for word in one["args"]]
        process = subprocess.Popen(
            [*one["command"], *words],
            env=env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.exits.callback(end, process)
        return process


def end(process: "subprocess.Popen[str]") -> None:
    with process:
        process.terminate()
        process.wait(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pods(folder: Path) -> Iterator[Pods]:
    [command] = set(re.findall(r"^ +(openssl req .*)$", PAGE, re.MULTILINE))
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    with ExitStack() as exits:
        yield Pods(folder, exits)


def test_the_manifests_convert_from_s3_to_s3_over_tls(s3: str, tmp_path: Path) -> None:
    for number, ds in enumerate(make_series(5)):
        storage.write(f"{s3}/export/{number}.dcm", to_bytes(ds))
    named = {v["name"] for v in container("worker")["env"] if "valueFrom" in v}
    secret = {name: os.environ[name] for name in named if name in os.environ}
    secret["DICOMDASK_KEY"] = SECRET
    _, source, store, _, work, *_ = container("convert")["args"]
    places = {source: f"{s3}/export", store: f"{s3}/o.zarr", work: f"{s3}/work"}
    with pods(tmp_path) as cluster:
        scheduler = cluster.start("scheduler", {})
        worker = cluster.start("worker", secret)
        wait_for_port(cluster.port)
        job = cluster.start("convert", secret, args=places)
        said = job.communicate(timeout=120)[0]
        assert scheduler.poll() is None
        assert worker.poll() is None
        assert_plain_talk_is_refused(cluster.port)
        again = cluster.start("convert", secret, args=places)
        said_again = again.communicate(timeout=60)[0]
        without = {name: secret[name] for name in secret if name != "DICOMDASK_KEY"}
        stranger = cluster.start("convert", without, args=places)
        said_without_key = stranger.communicate(timeout=60)[0]
    assert job.returncode == 0, said
    assert dicomdask.open_dataset(places[store]).commit.codes == {"stored": 5}
    assert again.returncode == 0, said_again
    assert "nothing new: commit 0 stands" in said_again
    assert stranger.returncode in (1, 2)
    assert "no key" in said_without_key
    for text in (said, said_again, said_without_key):
        assert SECRET not in text
        assert secret["AWS_SECRET_ACCESS_KEY"] not in text


def wait_for_port(port: int, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < end, "nobody listens"
        time.sleep(0.1)


def assert_plain_talk_is_refused(port: int) -> None:
    address = f"tcp://127.0.0.1:{port}"
    code = f"import distributed; distributed.Client({address!r}, timeout=2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert re.search("OSError|CommClosedError|Connection reset", done.stderr)
