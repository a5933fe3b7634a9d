"""What is shipped to run several servers agrees with itself and with the server: names, ports, settings, limits."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, cast

import pytest
import yaml

import graceful_shutdown
import main
import pool_metrics
from config import Settings, load_settings
from conftest import REPOSITORY
from process_pool import PoolState
from replicas import NGINX_TEMPLATE, nginx_configuration

DEPLOY = REPOSITORY / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SETTINGS = {name.upper() for name in Settings.model_fields}
UVICORNS_KEEP_ALIVE_SECONDS = 5
NGINX = NGINX_TEMPLATE.read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
SCALE: dict[str, dict[str, Any]] = {name: it for name, it in COMPOSE["services"].items() if "profiles" in it}
# An operator's own secret.yaml is no concern of ours.
FILES = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "secret.yaml"]
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for path in FILES
    for manifest in cast("Iterator[dict[str, Any]]", yaml.safe_load_all(path.read_text(encoding="utf-8")))
]


def manifest(kind: str, name: str = "claude-wrapper") -> dict[str, Any]:
    """The manifest of this kind and name."""
    (found,) = [it for it in MANIFESTS if (it["kind"], it["metadata"]["name"]) == (kind, name)]
    return found


def pod_of(kind: str, name: str = "claude-wrapper") -> dict[str, Any]:
    """The pod that a Deployment or a StatefulSet makes."""
    pod: dict[str, Any] = manifest(kind, name)["spec"]["template"]["spec"]
    return pod


def container_of(kind: str, name: str = "claude-wrapper") -> dict[str, Any]:
    """Its only container."""
    (container,) = pod_of(kind, name)["containers"]
    return cast("dict[str, Any]", container)


WORKLOADS = [("Deployment", "claude-wrapper"), ("StatefulSet", "claude-wrapper-redis")]
workloads = pytest.mark.parametrize(("kind", "name"), WORKLOADS)


def nginx_value(directive: str) -> str:
    """What nginx.conf gives for a directive that it has once."""
    (value,) = re.findall(rf"^ *{directive} (.+);$", NGINX, re.MULTILINE)
    return str(value)


def test_the_template_has_no_variable_that_compose_doesnt_set() -> None:
    """What nginx.conf leaves open comes from the proxy's environment, or from the list of servers."""
    given = {*SCALE["proxy"]["environment"], "UPSTREAM_SERVERS"} - {"REPLICAS", "REPLICA_NAME"}
    assert set(re.findall(r"\$\{(\w+)\}", NGINX)) == given
    assert "${" not in nginx_configuration(["127.0.0.1:1"], "8080")


def test_every_replica_of_compose_is_a_server_of_nginx() -> None:
    """The list has as many names as there are replicas, each once, as compose numbers them, with the replicas' port."""
    script = DEPLOY / "upstream-servers.envsh"
    assert os.access(script, os.X_OK), "the image ignores what isn't executable"
    environment = {"PATH": os.environ["PATH"], "REPLICAS": "3", "REPLICA_NAME": "project-replica"}
    command = f'set -eu; . {script}; env | sed -n "s/^UPSTREAM_SERVERS=//p"'
    shown = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    port = SCALE["replica"]["environment"]["PORT"]
    assert shown.stdout.split(";") == [
        *(f" server project-replica-{n}:{port} resolve max_fails=0" for n in (1, 2, 3)),
        "\n",
    ]
    assert SCALE["proxy"]["environment"]["REPLICAS"] == SCALE["replica"]["deploy"]["replicas"]
    assert SCALE["proxy"]["environment"]["REPLICA_NAME"] == "${COMPOSE_PROJECT_NAME}-replica"


def test_nginx_closes_idle_connections_before_the_servers_do() -> None:
    """Otherwise a POST could meet a connection that is just being closed, and fail without need."""
    assert 0 < int(nginx_value("keepalive_timeout").removesuffix("s")) < UVICORNS_KEEP_ALIVE_SECONDS


def test_the_scale_profile_leaves_the_plain_service_alone() -> None:
    """`docker compose up` starts the one server; the profile adds nginx, replicas and Redis."""
    assert {*COMPOSE["services"]} - {*SCALE} == {"claude-wrapper"}
    assert {*SCALE} == {"proxy", "replica", "redis"}
    assert all(service["profiles"] == ["scale"] for service in SCALE.values())


def test_replicas_are_reached_through_nginx_only() -> None:
    """They publish no port, and trust nginx' fixed address, which nobody else can get."""
    plain, replica = COMPOSE["services"]["claude-wrapper"], SCALE["replica"]
    assert not replica["ports"]
    assert {*plain} - {*replica} == set()
    assert {name: replica[name] for name in ("image", "build", "user", "volumes")} == {
        name: plain[name] for name in ("image", "build", "user", "volumes")
    }
    (network,) = COMPOSE["networks"]["scale"]["ipam"]["config"]
    address = SCALE["proxy"]["networks"]["scale"]["ipv4_address"]
    assert load_settings(_env_file=None, trusted_proxies=replica["environment"]["TRUSTED_PROXIES"]).trusted_proxies == (
        address,
    )
    assert ip_address(address) in ip_network(network["subnet"])
    assert ip_address(address) not in ip_network(network["ip_range"])


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_have_no_rights(name: str) -> None:
    """No capability but what nginx needs to give its workers away, no way to any, and only mounts to write to."""
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN", "SETGID", "SETUID"] if name == "proxy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ("user" in service) != (name == "proxy")
    assert not service.get("privileged")


def test_nginx_can_write_where_it_must() -> None:
    """Its configuration, which is made at the start, its process id, and bodies that are large."""
    places = {"/etc/nginx/conf.d", "/run", "/tmp", "/var/cache/nginx"}  # noqa: S108 - the container's own
    assert {*SCALE["proxy"]["tmpfs"]} == places


def test_compose_publishes_what_nginx_listens_on() -> None:
    """The published port is nginx' own, on this machine only."""
    assert SCALE["proxy"]["ports"] == [f"127.0.0.1:${{SCALE_PORT:-8080}}:{SCALE['proxy']['environment']['LISTEN']}"]


def test_composes_redis_keeps_what_it_acknowledges() -> None:
    """Each change is on the disk before its answer, and the disk outlives the container."""
    assert SCALE["redis"]["command"] == "redis-server --appendonly yes --appendfsync always"
    assert [volume.split(":") for volume in SCALE["redis"]["volumes"]] == [["redis-data", "/data"]]
    assert "redis-data" in COMPOSE["volumes"]
    assert SCALE["replica"]["environment"]["REDIS_URL"] == "redis://redis:6379/0"
    user = pod_of("StatefulSet", "claude-wrapper-redis")["securityContext"]
    assert SCALE["redis"]["user"] == f"{user['runAsUser']}:{user['runAsGroup']}"


@pytest.mark.parametrize("service", ["claude-wrapper", "replica"])
def test_compose_sets_only_what_there_is_to_set(service: str) -> None:
    """Each variable is a setting."""
    assert {*COMPOSE["services"][service]["environment"]} <= SETTINGS


def test_nginx_and_servers_take_bodies_of_the_same_size() -> None:
    """The limit is MAX_REQUEST_SIZE everywhere."""
    default = Settings.model_fields["max_request_size"].default
    assert SCALE["proxy"]["environment"]["MAX_REQUEST_SIZE"] == f"${{MAX_REQUEST_SIZE:-{default}}}"
    assert annotation("proxy-body-size") == str(default)


def annotation(name: str) -> str:
    """What the Ingress asks of ingress-nginx."""
    return str(manifest("Ingress")["metadata"]["annotations"][f"nginx.ingress.kubernetes.io/{name}"])


def test_the_ingress_does_as_nginx_does() -> None:
    """Affinity, buffering, timeouts and what goes to the next server are the same, though each has its own words."""
    assert f'default "{annotation("upstream-hash-by")}";' in NGINX
    assert annotation("proxy-buffering") == nginx_value("proxy_buffering")
    assert f"{annotation('proxy-connect-timeout')}s" == nginx_value("proxy_connect_timeout")
    assert (annotation("proxy-read-timeout"), nginx_value("proxy_read_timeout")) == ("3600", "1h")
    assert annotation("proxy-next-upstream") == nginx_value("proxy_next_upstream")


def test_the_readme_names_every_manifest() -> None:
    """`kubectl apply` as written applies all of them, the secret as the operator's own copy."""
    command = (DEPLOY / "README.md").read_text(encoding="utf-8")
    applied = set(re.findall(r"-f ([\w.-]+)", command))
    assert applied == {path.name.replace(".example", "") for path in FILES}


@workloads
def test_selectors_find_the_pods(kind: str, name: str) -> None:
    """Workload, Service and disruption budget select what the pods are labelled with."""
    labels = manifest(kind, name)["spec"]["template"]["metadata"]["labels"]
    assert manifest(kind, name)["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service", name)["spec"]["selector"] == labels


def test_the_budget_and_the_autoscaler_are_the_deployments() -> None:
    """One selects its pods, the other names it, and nobody else says how many there are."""
    deployment = manifest("Deployment")
    assert manifest("PodDisruptionBudget")["spec"]["selector"] == deployment["spec"]["selector"]
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["apiVersion"], target["kind"]) == (deployment["apiVersion"], deployment["kind"])
    assert target["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]


@workloads
def test_ports_lead_to_the_containers(kind: str, name: str) -> None:
    """A Service's target, and every probe, name a port that the container has."""
    container = container_of(kind, name)
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in manifest("Service", name)["spec"]["ports"]} == names
    for probe in ("readinessProbe", "livenessProbe"):
        (action,) = [it for it in container[probe].values() if isinstance(it, dict)]
        assert action["port"] in names


def test_the_ingress_leads_to_the_service() -> None:
    """It names the Service and a port of it; the container's is the image's."""
    (rule,) = manifest("Ingress")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = manifest("Service")
    assert path["backend"]["service"]["name"] == service["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    image = re.search(r"^EXPOSE (\d+)$", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert image
    assert [port["containerPort"] for port in container_of("Deployment")["ports"]] == [int(image[1])]


def environment_of_the_server() -> dict[str, str]:
    """What a pod's server gets, with the example's secrets."""
    container = container_of("Deployment")
    (source,) = container["envFrom"]
    environment: dict[str, str] = {**manifest("ConfigMap", source["configMapRef"]["name"])["data"]}
    for variable in container["env"]:
        environment[variable["name"]] = variable["value"] if "value" in variable else secret(variable["valueFrom"])
    return environment


def secret(source: Mapping[str, Mapping[str, str]]) -> str:
    """The example's value for a reference."""
    reference = source["secretKeyRef"]
    return str(manifest("Secret", reference["name"])["stringData"][reference["key"]])


def test_the_servers_settings_are_settings() -> None:
    """Each variable is a setting, but for the password that goes into one; the server takes all of them."""
    environment = environment_of_the_server()
    assert {*environment} - SETTINGS == {"REDIS_PASSWORD"}
    values = {name.lower(): value for name, value in environment.items() if name in SETTINGS}
    settings = load_settings(_env_file=None, **values)
    assert settings.keys
    assert settings.trusted_proxies


def test_the_server_finds_redis() -> None:
    """Its address is the Service's, its password the one that Redis asks for."""
    environment, service = environment_of_the_server(), manifest("Service", "claude-wrapper-redis")
    (port,) = service["spec"]["ports"]
    host = f"{service['metadata']['name']}:{port['port']}"
    assert environment["REDIS_URL"] == f"redis://:$(REDIS_PASSWORD)@{host}/0"
    names = [variable["name"] for variable in container_of("Deployment")["env"]]
    assert names.index("REDIS_PASSWORD") < names.index("REDIS_URL"), "Kubernetes expands what it knows already"
    redis = container_of("StatefulSet", "claude-wrapper-redis")
    assert redis["args"] == ["--appendonly", "yes", "--appendfsync", "always", "--requirepass", "$(REDIS_PASSWORD)"]
    assert [secret(variable["valueFrom"]) for variable in redis["env"]] == [environment["REDIS_PASSWORD"]]


@workloads
def test_pods_have_no_rights(kind: str, name: str) -> None:
    """No root, no capabilities, no token, and a disk that can't be written to but for what is mounted."""
    pod, container = pod_of(kind, name), container_of(kind, name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_server_can_write_where_it_must() -> None:
    """The places that compose has for it, `/tmp` and the image's home, go with the pod."""
    mounts = {mount["mountPath"]: mount["name"] for mount in container_of("Deployment")["volumeMounts"]}
    assert {*mounts} == {place.partition(":")[0] for place in COMPOSE["services"]["claude-wrapper"]["tmpfs"]}
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod_of("Deployment")["volumes"]}
    assert volumes == {name: {} for name in mounts.values()}


def test_a_pod_has_time_to_drain() -> None:
    """Kubernetes waits longer than the pause before SIGTERM and what the server gives to its requests."""
    (_, pause) = container_of("Deployment")["lifecycle"]["preStop"]["exec"]["command"]
    settings = load_settings(_env_file=None)
    needed = int(pause) + settings.shutdown_grace + main._CUT_OFF_SECONDS + graceful_shutdown._LAST_WORDS_SECONDS
    assert pod_of("Deployment")["terminationGracePeriodSeconds"] > needed


def test_the_autoscaler_asks_for_a_metric_that_there_is() -> None:
    """The queue's length is in /metrics under the name by which the autoscaler, and the README's adapter, know it."""
    (metric,) = [it for it in manifest("HorizontalPodAutoscaler")["spec"]["metrics"] if it["type"] == "Pods"]
    name = metric["pods"]["metric"]["name"]
    state = PoolState(1, True, 0, 0, 0, {}, 0, (), 0, 0)  # noqa: FBT003 - whether processes are reused
    assert f"\n{name} 0.0\n" in pool_metrics.render(state).decode()
    assert f"seriesQuery: {name}{{" in (DEPLOY / "README.md").read_text(encoding="utf-8")
