"""The containers of the manifests for real: run by Docker as locked as in their pods.

Runs with JOBMON_TEST_DOCKER=1, and needs kubectl, a Docker engine, and the images of the Dockerfile and
of the database.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import until

from jobmon.release import read_releases
from jobmon.release_secrets import make_secrets

ROOT = Path(__file__).resolve().parents[2]
RELEASE = read_releases().current
Manifest = dict[str, Any]

if not os.environ.get("JOBMON_TEST_DOCKER"):
    pytest.skip("JOBMON_TEST_DOCKER is not set: no containers", allow_module_level=True)
if shutil.which("kubectl") is None or os.geteuid() != 0:
    pytest.skip("needs kubectl, and root to give files away", allow_module_level=True)


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0 or not check, done.stdout[-4000:]
    return done.stdout


class Cluster:
    """A network in which the containers of an overlay run; a service is reached by its name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o755)
        self.name = f"jobmonpods{secrets.token_hex(4)}"
        make_secrets(directory / "secrets", RELEASE)
        made = subprocess.check_output(["kubectl", "kustomize", str(ROOT / "k8s/overlays/embedded-db")])
        documents = [document for document in yaml.safe_load_all(made) if document]
        [self.settings] = [document["data"] for document in documents if document["kind"] == "ConfigMap"]
        kinds = ("Deployment", "StatefulSet", "Job")
        self.workloads = {one["metadata"]["name"]: one for one in documents if one["kind"] in kinds}

    def spec(self, workload: str) -> Manifest:
        found: Manifest = self.workloads[workload]["spec"]["template"]["spec"]
        return found

    def _mounts(self, workload: str, container: Manifest) -> Iterator[str]:
        spec = self.spec(workload)
        user, group = spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            volume, path = volumes.get(mount["name"]), mount["mountPath"]
            if volume is None:  # a claim
                yield from ("--volume", f"{self.name}:{path}")
            elif "emptyDir" in volume:
                yield from ("--tmpfs", f"{path}:exec,uid={user},gid={group},mode=0770")
            else:
                place = self.directory / workload
                place.mkdir(exist_ok=True)
                place.chmod(0o755)
                for item in volume["secret"]["items"]:
                    source = self.directory / "secrets" / volume["secret"]["secretName"] / item["key"]
                    file = place / item["path"]
                    file.write_text(source.read_text())
                    os.chown(file, 0, group)
                    file.chmod(volume["secret"]["defaultMode"])
                yield from ("--volume", f"{place}:{path}:ro")

    def _environment(self, container: Manifest) -> Iterator[str]:
        found = dict(self.settings) if "envFrom" in container else {}
        for variable in container["env"]:
            if "value" in variable:
                found[variable["name"]] = variable["value"]
                continue
            reference = variable["valueFrom"]["secretKeyRef"]
            file = self.directory / "secrets" / reference["name"] / reference["key"]
            if file.exists() or not reference.get("optional"):
                found[variable["name"]] = file.read_text()
        for name, value in found.items():
            yield from ("--env", f"{name}={value}")

    def run(self, workload: str, container: Manifest, *, stays: bool = False) -> str:
        """Run one container of a workload; what it printed, or its id if it stays."""
        context = self.spec(workload)["securityContext"]
        arguments = [
            "--name", f"{self.name}-{workload}-{container['name']}", "--network", self.name,
            "--user", f"{context['runAsUser']}:{context['runAsGroup']}", "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges:true", "--read-only",
            *self._mounts(workload, container), *self._environment(container),
        ]  # fmt: skip
        image = self.name if container["image"] == RELEASE.image else container["image"]
        words = [*container.get("command", []), *container.get("args", [])]
        if "command" in container:
            arguments += ["--entrypoint", words.pop(0)]
        if stays:
            arguments += ["--detach", "--network-alias", workload]
        return docker("run", *arguments, image, *words)

    def stop(self) -> None:
        for number in docker("ps", "--all", "--quiet", "--filter", f"network={self.name}").split():
            docker("rm", "--force", "--volumes", number, check=False)
        for what in ("network", "volume"):
            docker(what, "rm", self.name, check=False)
        docker("rmi", "--force", self.name, check=False)

    def status(self, workload: str, probe: Manifest) -> str:
        """What a workload's probe says, asked from another container: an HTTP status."""
        [container] = self.spec(workload)["containers"]
        [port] = [
            port["containerPort"] for port in container["ports"] if port["name"] == probe["httpGet"]["port"]
        ]
        url = f"http://{workload}:{port}{probe['httpGet']['path']}"
        program = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=10).status)"
        return docker(
            "run",
            "--rm",
            "--network",
            self.name,
            "--entrypoint",
            "python",
            self.name,
            "-c",
            program,
            check=False,
        ).strip()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        docker("build", "--quiet", "--tag", made.name, str(ROOT))
        docker("network", "create", made.name)
        # A volume of a cluster is the group's of the pod.
        docker("volume", "create", made.name)
        [server] = made.spec("jobmon-db")["containers"]
        docker("run", "--rm", "--user", "0", "--volume", f"{made.name}:/v", "--entrypoint", "chown",
               server["image"], "999:999", "/v")  # fmt: skip
        yield made
    finally:
        made.stop()


def test_everything_comes_up_in_locked_containers(cluster: Cluster) -> None:
    [server] = cluster.spec("jobmon-db")["containers"]
    database = cluster.run("jobmon-db", server, stays=True).strip()
    ping = server["readinessProbe"]["exec"]["command"]
    # A refused account is an answer, too: the kubelet looks at the exit code.
    until(lambda: subprocess.run(["docker", "exec", database, *ping], capture_output=True).returncode == 0)

    migrate = cluster.spec("jobmon-migrate")
    assert "takes connections" in cluster.run("jobmon-migrate", migrate["initContainers"][0])
    assert "created the account of jsm" in cluster.run("jobmon-migrate", migrate["containers"][0])

    for workload in ("jobmon-jsm", "jobmon-jqs", "jobmon-monitor"):
        spec = cluster.spec(workload)
        for container in spec.get("initContainers", []):
            assert "fits this code" in cluster.run(workload, container)
        [container] = spec["containers"]
        number = cluster.run(workload, container, stays=True).strip()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            until(lambda w=workload, p=container[probe]: cluster.status(w, p).endswith("200"))
        said = docker("logs", number)
        assert "others can read" not in said and "Traceback" not in said
        if "lifecycle" in container:
            docker("exec", number, *container["lifecycle"]["preStop"]["exec"]["command"])
    jsm = f"{cluster.name}-jobmon-jsm-jsm"
    docker("stop", "--time", str(cluster.spec("jobmon-jsm")["terminationGracePeriodSeconds"]), jsm)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", jsm).strip() == "0"
