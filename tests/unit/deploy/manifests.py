"""The shipped manifests, read; and settings as a container would load them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from posthouse.config import Settings, load

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML keeps the last."""


def _mapping(loader: _Strict, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"twice in {node.start_mark}: {twice}"
    loader.flatten_mapping(node)
    return {
        loader.construct_object(key, deep=True): loader.construct_object(value, deep=True) for key, value in node.value
    }


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


@cache
def compose() -> dict[str, Any]:
    return yaml.load((DEPLOY / "compose.yaml").read_text(), _Strict)


@dataclass(frozen=True)
class Made:
    """An object of a file of deploy/kubernetes."""

    file: str
    body: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.body['kind']}/{self.body['metadata']['name']}"

    @property
    def pods(self) -> Mapping[str, Any] | None:
        """The template of its pods."""
        return self.body["spec"]["template"] if self.body["kind"] in {"Deployment", "Job"} else None


@cache
def kubernetes() -> tuple[Made, ...]:
    return tuple(
        Made(path.name, body)
        for path in sorted(KUBERNETES.glob("*.yaml"))
        for body in yaml.load_all(path.read_text(), _Strict)
        if body["kind"] != "Kustomization"
    )


def of(kind: str) -> Iterator[Made]:
    return (made for made in kubernetes() if made.body["kind"] == kind)


def named(name: str) -> Mapping[str, Any]:
    (found,) = [made.body for made in kubernetes() if made.name == name]
    return found


def secrets(target: Path) -> Path:
    """What deploy/secrets.sh makes."""
    subprocess.run(["bash", str(DEPLOY / "secrets.sh"), str(target)], check=True, timeout=20)
    return target


def loaded(environment: Mapping[str, str], mounts: Mapping[str, Path], cwd: Path) -> Settings:
    """:param mounts: a directory of the container → one here."""
    here = dict(environment)
    for name, value in here.items():
        for mount, place in mounts.items():
            if name.endswith("_FILE") and value.startswith(f"{mount}/"):
                here[name] = str(place / value.removeprefix(f"{mount}/"))
    return load(environ=here, cwd=cwd).settings
