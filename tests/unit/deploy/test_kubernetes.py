"""deploy/kubernetes: valid by Kubernetes' own schemas, and by our rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from manifests import DEPLOY, KUBERNETES, Made, kubernetes, loaded, named, of

from posthouse.app import lag
from posthouse.config.schema import ROLES

ALL = [pytest.param(made, id=made.name) for made in kubernetes()]
DEPLOYMENTS = [pytest.param(made, id=made.name) for made in of("Deployment")]
PODS = [pytest.param(made, id=made.name) for made in kubernetes() if made.pods]
VERSIONS = ("1.27", "1.31", "1.34")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("made", ALL)
def test_it_is_what_kubernetes_takes(made: Made, version: str) -> None:
    kubernetes_validate.validate(made.body, version, strict=True)


def test_the_schemas_refuse_what_is_wrong() -> None:
    wrong = {**named("Deployment/posthouse-api")}
    wrong["spec"] = {**wrong["spec"], "replica": 2}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_kustomization_names_every_file() -> None:
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(listed["resources"]) == files


def container(made: Made) -> dict[str, Any]:
    assert made.pods is not None
    (only,) = made.pods["spec"]["containers"]
    return only


@pytest.mark.parametrize("made", PODS)
def test_every_pod_is_bounded_and_has_no_rights(made: Made) -> None:
    assert made.pods is not None
    spec, one = made.pods["spec"], container(made)
    for bound in ("requests", "limits"):
        assert {"cpu", "memory", "ephemeral-storage"} <= one["resources"][bound].keys()
    assert one["image"] == "posthouse:0.1.0"
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert {mount["name"] for mount in one["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}


def environment(made: Made) -> dict[str, str]:
    own = {item["name"]: item["value"] for item in container(made).get("env", [])}
    return {**named("ConfigMap/posthouse")["data"], **own}


@pytest.mark.parametrize("made", PODS)
def test_the_environment_is_settings(made: Made, tmp_path: Path) -> None:
    held = named("Secret/posthouse")["stringData"]
    for name, value in held.items():
        (tmp_path / name).write_text(value + "\n")
    settings = loaded(environment(made), {"/run/secrets/posthouse": tmp_path}, tmp_path)
    assert settings.records.url == held["records_url"]
    assert settings.bus.url == held["bus_url"]
    assert str(settings.queue.url).startswith("kafka:")
    assert settings.secret_key_file == tmp_path / "secret.key"
    for name, value in environment(made).items():
        if name.endswith("_FILE"):
            assert Path(value).name in held


@pytest.mark.parametrize("made", DEPLOYMENTS)
def test_probes_ports_and_grace_fit_the_settings(made: Made, tmp_path: Path) -> None:
    assert made.pods is not None
    for name, value in named("Secret/posthouse")["stringData"].items():
        (tmp_path / name).write_text(value)
    settings = loaded(environment(made), {"/run/secrets/posthouse": tmp_path}, tmp_path)
    one = container(made)
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    assert settings.http.host == "0.0.0.0"
    assert ports["health"] == settings.http.health_port
    assert made.pods["metadata"]["annotations"]["prometheus.io/port"] == str(settings.http.health_port)
    assert ("http" in ports) == ("api" in settings.roles)
    if "api" in settings.roles:
        assert ports["http"] == settings.http.port
    assert one["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert one["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    # /readyz gives its checks two seconds.
    assert one["readinessProbe"]["timeoutSeconds"] > 2
    assert made.pods["spec"]["terminationGracePeriodSeconds"] >= 2 * settings.worker.drain_timeout + 10
    if "mx" in settings.roles:
        assert settings.receive.mx == (f"0.0.0.0:{ports['smtp']}",)


def test_every_role_has_a_deployment() -> None:
    served = [role for made in of("Deployment") for role in environment(made)["POSTHOUSE_ROLES"].split(",")]
    assert sorted(served) == sorted(ROLES)


@pytest.mark.parametrize("made", DEPLOYMENTS)
def test_every_deployment_is_found_by_what_is_about_it(made: Made) -> None:
    assert made.pods is not None
    name, labels = made.body["metadata"]["name"], made.pods["metadata"]["labels"]
    assert made.body["spec"]["selector"]["matchLabels"] == labels
    budget = named(f"PodDisruptionBudget/{name}")
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["maxUnavailable"] == 1
    scaled = [one.body for one in of("HorizontalPodAutoscaler") if one.body["spec"]["scaleTargetRef"]["name"] == name]
    assert len(scaled) + ("replicas" in made.body["spec"]) == 1, "either the autoscaler counts, or the manifest"
    for service in of("Service"):
        if service.body["metadata"]["name"] == name:
            assert service.body["spec"]["selector"] == labels
            assert {port["targetPort"] for port in service.body["spec"]["ports"]} <= {
                port["name"] for port in container(made)["ports"]
            }


def test_stages_scale_by_what_waits_for_them() -> None:
    by_stage = {}
    for one in of("HorizontalPodAutoscaler"):
        for metric in one.body["spec"]["metrics"]:
            if metric["type"] == "External":
                named_ = metric["external"]["metric"]
                assert named_["name"] == "posthouse_queue_ready" == next(iter(lag.READY.describe())).name
                by_stage[named_["selector"]["matchLabels"]["stage"]] = one.body["metadata"]["name"]
    assert by_stage == {"render": "posthouse-worker", "store": "posthouse-store", "index": "posthouse-index"}
    rules = yaml.safe_load((DEPLOY / "prometheus" / "adapter.yaml").read_text())["rules"]["external"]
    assert [rule["name"]["as"] for rule in rules] == ["posthouse_queue_ready"]


def test_pods_may_reach_each_engine_and_those_who_deliver_the_world() -> None:
    policy = named("NetworkPolicy/posthouse")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert {53, 5432, 6379, 7070, 9092, 9200} == ports
    sending = named("NetworkPolicy/posthouse-worker")["spec"]
    assert {port["port"] for rule in sending["egress"] for port in rule["ports"]} == {25, 465, 587}
    wide = [peer for rule in policy["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert not wide
