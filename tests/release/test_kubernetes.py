"""The manifests below k8s/: valid on several versions of Kubernetes, and fitting each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from jobmon.cli import main
from jobmon.config import KEYS, load_config
from jobmon.db.connect import connect
from jobmon.release import read_releases
from jobmon.release_secrets import SECRETS, make_secrets

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
RELEASE = read_releases().current
VERSIONS = ("1.27", "1.31", "1.34", "1.37")
OVERLAYS = ("embedded-db", "external-db")
KUSTOMIZE_KINDS = ("Kustomization", "Component")
Manifest = dict[str, Any]


def manifests(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def files() -> list[Path]:
    return sorted(K8S.rglob("*.yaml"))


def of_kind(documents: list[Manifest], *kinds: str) -> list[Manifest]:
    return [document for document in documents if document["kind"] in kinds]


def template(workload: Manifest) -> Manifest:
    found: Manifest = workload["spec"]["template"]
    return found


def all_containers(workload: Manifest) -> list[Manifest]:
    spec = template(workload)["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def collect(directory: Path) -> list[Manifest]:
    """What a kustomization names, directly or by another one, as it stands in the files."""
    [kustomization] = manifests(directory / "kustomization.yaml")
    found: list[Manifest] = []
    for name in (*kustomization["resources"], *kustomization.get("components", [])):
        place = directory / name
        assert place.exists(), f"{directory}: {name}"
        found += collect(place) if place.is_dir() else manifests(place)
    for generator in kustomization.get("configMapGenerator", []):
        data = dict(literal.split("=", 1) for literal in generator["literals"])
        found.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}
        )
    return found


def kustomized(directory: Path) -> list[Manifest]:
    """What `kubectl kustomize` makes."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[Manifest]]:
    """An overlay's name, and all of its manifests with those of the distributor."""
    components = collect(K8S / "components" / "distributor")
    return request.param, [*collect(K8S / "overlays" / request.param), *components]


# -- valid


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_know_every_field(version: str) -> None:
    for path in files():
        for document in manifests(path):
            if document["kind"] not in KUSTOMIZE_KINDS:
                kubernetes_validate.validate(document, version, strict=True)


def test_a_wrong_field_would_be_found() -> None:
    [deployment] = of_kind(manifests(K8S / "base" / "jsm.yaml"), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_kustomize_makes_valid_manifests_of_one_namespace(name: str) -> None:
    documents = kustomized(K8S / "overlays" / name)
    for document in documents:
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)
    [namespace] = of_kind(documents, "Namespace")
    assert namespace["metadata"]["name"] == RELEASE.project
    others = [document for document in documents if document["kind"] != "Namespace"]
    assert {document["metadata"].get("namespace") for document in others} == {RELEASE.project}
    [settings] = of_kind(documents, "ConfigMap")
    for workload in of_kind(documents, "Deployment", "Job"):
        for container in all_containers(workload):
            assert container["image"] == RELEASE.image
            sources = [source["configMapRef"]["name"] for source in container["envFrom"]]
            assert sources == [settings["metadata"]["name"]]
    # The same as the collection that the other tests look at.
    mine = {(document["kind"], document["metadata"]["name"]) for document in collect(K8S / "overlays" / name)}
    theirs = {
        (document["kind"], re.sub(r"^jobmon-[0-9a-z]{10}$", "jobmon", document["metadata"]["name"]))
        if document["kind"] == "ConfigMap"
        else (document["kind"], document["metadata"]["name"])
        for document in documents
    }
    assert mine == theirs


def test_a_site_changes_image_and_service_in_an_overlay_of_its_own(tmp_path: Path) -> None:
    """The example of docs/kubernetes.md."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/kubernetes.md").read_text(), re.M | re.S)
    [block] = [block for block in blocks if "kind: Kustomization" in block]
    site = tmp_path / "site"
    site.mkdir()
    shutil.copytree(K8S, tmp_path / "jobmon" / "k8s")
    (site / "kustomization.yaml").write_text(block)
    documents = kustomized(site)
    images = {
        container["image"]
        for workload in of_kind(documents, "Deployment", "Job")
        for container in all_containers(workload)
    }
    assert images == {f"registry.example.org/{RELEASE.image}"}
    [service] = [found for found in of_kind(documents, "Service") if found["metadata"]["name"] == "jobmon"]
    assert service["spec"]["type"] == "LoadBalancer"
    assert "jobmon-distributor" in {found["metadata"]["name"] for found in of_kind(documents, "Deployment")}
    [settings] = of_kind(documents, "ConfigMap")
    assert settings["data"]["JOBMON_WORKERS"] == "4"
    assert settings["data"]["JOBMON_JSM_PORT"] == str(RELEASE.jsm_port)


# -- fitting each other


def labels_of(workload: Manifest) -> dict[str, str]:
    found: dict[str, str] = template(workload)["metadata"]["labels"]
    return found


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(each["operator"] == "In" for each in expressions)
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )


def port_names(workload: Manifest) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"]
        for container in template(workload)["spec"]["containers"]
        for port in container.get("ports", [])
    }


def test_selectors_select_the_pods_of_their_workload_only(overlay: tuple[str, list[Manifest]]) -> None:
    workloads = of_kind(overlay[1], "Deployment", "StatefulSet")
    for workload in workloads:
        hits = [one for one in workloads if selects(workload["spec"]["selector"], labels_of(one))]
        assert hits == [workload]
        assert workload["metadata"]["labels"].items() <= labels_of(workload).items()
    for budget in of_kind(overlay[1], "PodDisruptionBudget"):
        [hit] = [one for one in workloads if selects(budget["spec"]["selector"], labels_of(one))]
        # With one pod it would forbid to drain a node, or say nothing.
        assert hit["spec"]["replicas"] > budget["spec"]["maxUnavailable"] == 1
    guarded = {budget["metadata"]["name"] for budget in of_kind(overlay[1], "PodDisruptionBudget")}
    assert guarded == {"jobmon-jsm", "jobmon-jqs"}


def test_services_lead_to_ports_that_are_there(overlay: tuple[str, list[Manifest]]) -> None:
    name, documents = overlay
    workloads = of_kind(documents, "Deployment", "StatefulSet")
    ports: dict[str, dict[str, int]] = {}
    for service in of_kind(documents, "Service"):
        selected = [
            one for one in workloads if selects({"matchLabels": service["spec"]["selector"]}, labels_of(one))
        ]
        assert selected
        for port in service["spec"]["ports"]:
            # each port of it belongs to the pods of one workload, which have it under that name
            [number] = [
                port_names(one)[port["targetPort"]]
                for one in selected
                if port["targetPort"] in port_names(one)
            ]
            assert number == port["port"]
            ports.setdefault(service["metadata"]["name"], {})[port["name"]] = number
    wanted = {
        "jobmon": {"jsm": RELEASE.jsm_port, "jqs": RELEASE.jqs_port},
        "jobmon-jsm": {"jsm": RELEASE.jsm_port, "management": RELEASE.jsm_management_port},
        "jobmon-jqs": {"jqs": RELEASE.jqs_port},
    }
    if name == "embedded-db":
        wanted["jobmon-db"] = {"mysql": RELEASE.db_port}
    assert ports == wanted


def test_probes_ask_ports_that_are_there(overlay: tuple[str, list[Manifest]]) -> None:
    routes = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for workload in of_kind(overlay[1], "Deployment", "StatefulSet"):
        for container in template(workload)["spec"]["containers"]:
            named = {port["name"] for port in container.get("ports", [])}
            if container["name"] == "distributor":
                continue  # it listens nowhere
            for kind, route in routes.items():
                probe = container[kind]
                if container["name"] == "mysql":
                    assert f"--port={RELEASE.db_port}" in probe["exec"]["command"]
                    assert f"--port={RELEASE.db_port}" in container["args"]
                else:
                    assert probe["httpGet"] == {"path": route, "port": probe["httpGet"]["port"]}
                    assert probe["httpGet"]["port"] in named


def test_policies_let_in_what_must_come_in_and_nothing_else(overlay: tuple[str, list[Manifest]]) -> None:
    name, documents = overlay
    workloads = {
        one["metadata"]["name"]: one for one in of_kind(documents, "Deployment", "StatefulSet", "Job")
    }
    policies = of_kind(documents, "NetworkPolicy")
    [default] = [one for one in policies if one["spec"]["podSelector"] == {}]
    assert default["spec"]["policyTypes"] == ["Ingress"] and "ingress" not in default["spec"]

    def allowed(workload: Manifest) -> Iterator[tuple[str, Any]]:
        for policy in policies:
            if not selects(policy["spec"]["podSelector"], labels_of(workload)):
                continue
            for rule in policy["spec"].get("ingress", []):
                for port in rule["ports"]:
                    if port["port"] in port_names(workload):
                        yield port["port"], rule.get("from")

    anywhere, in_cluster = None, [{"namespaceSelector": {}}]
    found = {key: dict(allowed(workload)) for key, workload in workloads.items()}
    database = found.pop("jobmon-db", None)
    assert found == {
        "jobmon-jsm": {"jsm": anywhere, "management": in_cluster},
        "jobmon-jqs": {"jqs": anywhere},
        "jobmon-monitor": {"management": in_cluster},
        "jobmon-migrate": {},
        "jobmon-distributor": {},
    }
    if name == "embedded-db":
        assert database is not None
        [(port, [source])] = database.items()
        reached_by = {key for key, one in workloads.items() if selects(source["podSelector"], labels_of(one))}
        assert (port, reached_by) == ("mysql", {"jobmon-jsm", "jobmon-jqs", "jobmon-migrate"})
        # and these are those who have an account of it
        accounts = {
            key
            for key, one in workloads.items()
            if any(volume.get("name") == "accounts" for volume in template(one)["spec"]["volumes"])
        }
        assert accounts == reached_by


def test_pods_are_as_locked_as_they_can_be(overlay: tuple[str, list[Manifest]]) -> None:
    for workload in of_kind(overlay[1], "Deployment", "StatefulSet", "Job"):
        spec = template(workload)["spec"]
        assert spec["enableServiceLinks"] is False  # JOBMON_JSM_PORT would be tcp://...
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in all_containers(workload):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
                assert set(amounts) == {"cpu", "memory"}
            volumes = {volume["name"] for volume in spec["volumes"]}
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
            assert mounts <= volumes | claims


def test_the_commands_are_there(overlay: tuple[str, list[Manifest]]) -> None:
    scripts = {"wait-for-db.sh", "wait-for-tables.sh"}
    seen = set()
    for workload in of_kind(overlay[1], "Deployment", "Job"):
        for container in all_containers(workload):
            words = container["command"]
            while words and words[0] in scripts:
                assert os.access(ROOT / words[0], os.X_OK)
                words = words[1:]
            if words:
                assert words[0] == "jobmon"
                seen.add(" ".join(words[1:3]))
                result = CliRunner().invoke(main, [*words[1:], "--help"])
                assert result.exit_code == 0, result.output
                assert result.output.startswith(f"Usage: main {words[1]}")
                unknown = [word for word in words[1:] if word.startswith("--") and word not in result.output]
                assert not unknown
    assert seen == {
        "start job_state_manager", "start job_query_server", "start health_monitor", "start distributor",
        "initdb --given-passwords",
    }  # fmt: skip


# -- settings and secrets


def environment(
    container: Manifest, settings: dict[str, str], secrets: dict[str, dict[str, str]]
) -> dict[str, str]:
    """A container's environment."""
    found = dict(settings)
    for variable in container["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
            continue
        reference = variable["valueFrom"]["secretKeyRef"]
        value = secrets[reference["name"]].get(reference["key"])
        assert value is not None or reference.get("optional"), variable
        if value is not None:
            found[variable["name"]] = value
    return found


def read_secrets(directory: Path) -> dict[str, dict[str, str]]:
    return {name: {path.name: path.read_text() for path in (directory / name).iterdir()} for name in SECRETS}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_process_gets_what_it_needs_and_no_more(name: str, tmp_path: Path) -> None:
    elsewhere = "mysql://root:secret@db.example.org:3306/jobs?tls=required"
    make_secrets(tmp_path, RELEASE, elsewhere if name == "external-db" else None)
    secrets = read_secrets(tmp_path)
    documents = [*collect(K8S / "overlays" / name), *collect(K8S / "components" / "distributor")]
    [settings] = [document["data"] for document in of_kind(documents, "ConfigMap")]
    assert {key for key in settings if key.startswith("JOBMON_")} <= {f"JOBMON_{key.upper()}" for key in KEYS}
    database = ("jobmon-db", RELEASE.db_port, "jobmon") if name == "embedded-db" else (
        "db.example.org", 3306, "jobs")  # fmt: skip
    for workload in of_kind(documents, "Deployment", "Job"):
        component = labels_of(workload)["app.kubernetes.io/component"]
        for container in all_containers(workload):
            env = environment(container, settings, secrets)
            mounted = [
                volume["secret"] for volume in template(workload)["spec"]["volumes"] if "secret" in volume
            ]
            for secret in mounted:
                assert secret["defaultMode"] == 0o440
                [item] = secret["items"]
                assert env["JOBMON_ACCOUNTS_FILE"] == f"/etc/jobmon/accounts/{item['path']}"
                file = tmp_path / f"{component}-accounts.json"
                file.write_text(secrets[secret["secretName"]][item["key"]])
                file.chmod(0o600)
                env["JOBMON_ACCOUNTS_FILE"] = str(file)
            config = load_config(env={**env, "HOME": str(tmp_path)})
            ports = {key: getattr(config, key) for key in RELEASE.ports}
            assert ports == RELEASE.ports and (config.host, config.query_host) == ("jobmon-jsm", "jobmon-jqs")
            seen = json.dumps([env, config.accounts()])
            accounts = json.loads(secrets["jobmon-accounts"]["accounts.json"])["accounts"]
            passwords = sum(account["password"] in seen for account in accounts.values())
            if component in ("jsm", "jqs"):
                spec = config.conn_spec(component)
                assert (spec.host, spec.port, spec.database) == database
                assert spec.user == f"jobmon_{component}" and passwords == 1
                assert spec.tls == ("required" if name == "external-db" else None)
                assert not {"JOBMON_ADMIN_CONN_STR", "JOBMON_CONN_STR"} & set(env)
                if container["name"] == component:
                    assert config.token == secrets["jobmon"]["token"]
                    config.require_safe_bind()
            elif component == "migrate":
                spec = config.conn_spec("admin")
                assert (spec.host, spec.port, spec.database) == database
                assert passwords == 4 and config.token is None
            else:
                assert passwords == 0 and config.token == secrets["jobmon"]["token"]


def test_secrets_are_private_and_stay(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    result = CliRunner().invoke(main, ["release", "secrets", str(directory)])
    assert result.exit_code == 0, result.output
    created = [line.split(" create secret generic ")[1] for line in result.stdout.splitlines()]
    assert created == [f"{name} --from-file={directory / name}" for name in SECRETS]
    assert f"--namespace {RELEASE.project} " in result.stdout
    before = read_secrets(directory)
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in directory.rglob("*"))
    values = [value for secret in before.values() for value in secret.values()]
    assert not any(value in result.output for value in values)
    assert not any(
        value.endswith("\n") for name in ("jobmon", "jobmon-database") for value in before[name].values()
    )
    (directory / "jobmon" / "slack_token").write_text("xoxb")
    (directory / "jobmon-accounts" / "jqs.json").unlink()
    assert CliRunner().invoke(main, ["release", "secrets", str(directory)]).exit_code == 0
    after = read_secrets(directory)
    assert after["jobmon"].pop("slack_token") == "xoxb"
    assert after == before, "a lost file is made again from the others"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mysql://root:hunter2@localhost/jobmon", "is not reached from a cluster"),
        ("mysql://root:hunter2@h/jobmon?unix_socket=/s", "is not reached from a cluster"),
        ("root:hunter2@h", "has no '://'"),
        ("", "has no '://'"),
    ],
)
def test_a_database_elsewhere_must_be_reached(tmp_path: Path, given: str, message: str) -> None:
    result = CliRunner().invoke(main, ["release", "secrets", "--external", str(tmp_path / "s")], input=given)
    assert result.exit_code == 1 and message in result.output and "hunter2" not in result.output
    assert not (tmp_path / "s").exists()


def test_secrets_of_another_database_are_not_mixed(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["release", "secrets", str(tmp_path)]).exit_code == 0
    before = read_secrets(tmp_path)
    result = CliRunner().invoke(
        main, ["release", "secrets", "--external", str(tmp_path)], input="mysql://root:x@h/jobmon"
    )
    assert (
        result.exit_code == 1 and f"is about jobmon-db:{RELEASE.db_port}/jobmon, not h:3306" in result.output
    )
    assert read_secrets(tmp_path) == before


def test_the_example_of_the_secrets_names_their_keys_and_no_values(tmp_path: Path) -> None:
    documents = manifests(K8S / "secrets.example.yaml")
    made: dict[str, set[str]] = {}
    for place, conn_str in (("a", None), ("b", "mysql://root:x@h/jobmon")):
        make_secrets(tmp_path / place, RELEASE, conn_str)
        for name, secret in read_secrets(tmp_path / place).items():
            made.setdefault(name, set()).update(secret)
    made["jobmon"] |= {"read_token", "slack_token"}
    assert {document["metadata"]["name"]: set(document["stringData"]) for document in documents} == made
    for document in documents:
        assert all(value == "CHANGE-ME" for value in document["stringData"].values())


def test_no_secret_is_in_the_manifests() -> None:
    for path in files():
        for document in manifests(path):
            if document["kind"] == "Secret":
                assert path.name == "secrets.example.yaml"
    for name in OVERLAYS:
        assert not of_kind(collect(K8S / "overlays" / name), "Secret")


def test_the_migration_and_the_services_work_with_the_secrets(make_database: Any, tmp_path: Path) -> None:
    """What the job does, on a real server: afterwards the services' files open the database."""
    database = make_database(migrated=False)
    secrets = tmp_path / "secrets"
    make_secrets(secrets, RELEASE)
    accounts_file = secrets / "jobmon-accounts" / "accounts.json"
    document = json.loads(accounts_file.read_text().replace('"jobmon_', f'"{database.prefix}'))
    admin = database.admin
    document |= {"database": admin.database, "host": admin.host, "port": admin.port}
    accounts_file.write_text(json.dumps(document))
    accounts_file.chmod(0o400)
    accounts_file.parent.chmod(0o500)
    rc = tmp_path / "rc"
    rc.write_text("{}")
    env = {
        "JOBMON_RC": str(rc),
        "JOBMON_ADMIN_CONN_STR": admin.conn_str(),
        "JOBMON_ACCOUNTS_FILE": str(accounts_file),
    }
    for _ in range(2):
        arguments = ["initdb", "--given-passwords", "--prefix", database.prefix]
        result = CliRunner().invoke(main, arguments, env=env)
        assert result.exit_code == 0, result.output
    for role in ("jsm", "jqs", "reader"):
        account = document["accounts"][role]
        connect(admin.with_account(account["user"], account["password"])).close()
